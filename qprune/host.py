"""Tensors of a device on the host: many of them in one transfer, because each makes the host wait for the device."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

_HOST = torch.device("cpu")


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors on the host, bit for bit; all that are on one device come in a single transfer.

    Example:
        >>> kept, scale = on_host([torch.tensor([True, False]), torch.tensor(0.5)])
        >>> kept, scale
        (tensor([ True, False]), tensor(0.5000))
    """
    found = [tensor.detach() for tensor in tensors]
    for device in {tensor.device for tensor in found} - {_HOST}:
        places = [place for place, tensor in enumerate(found) if tensor.device == device]
        for place, tensor in zip(places, _joined([found[place] for place in places]), strict=True):
            found[place] = tensor
    return found


def _joined(tensors: Sequence[Tensor]) -> list[Tensor]:
    # as bytes: a common dtype would round some, or make bools take eight times as long
    flat = torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in tensors]).cpu()
    parts = flat.split([tensor.numel() * tensor.itemsize for tensor in tensors])
    # cloned: a number of eight bytes may not begin where one of one byte ends
    return [part.clone().view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def on_device(numbers: Sequence[float], device: torch.device | None) -> Tensor:
    """Numbers, such as those of channels, on a device, without waiting for it.

    Example:
        >>> on_device((0, 2), torch.device("cpu"))
        tensor([0, 2])
    """
    return torch.tensor(numbers).to(device, non_blocking=True)


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers as float32 on a device, brought there once: to make such a tensor waits for a GPU each time.

    Example:
        >>> constant((0.5, 0.25), torch.device("cpu"))
        tensor([0.5000, 0.2500])
    """
    with torch.inference_mode(False):  # else gradients could not be computed with it later
        return torch.tensor(values, dtype=torch.float32, device=device)
