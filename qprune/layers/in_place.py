"""The rules of layers that take the place of another or are put into one, and of parameters that get smaller."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from qprune.layers.compressor import Compressor

Layer = TypeVar("Layer", bound=nn.Module)


def in_place_of(old: nn.Module, new: Layer, net: nn.Module | None = None) -> Layer:
    """Let a new layer take the place of another: on its device, in its dtype and mode; it trains if that one did.

    What masks and quantizers hold is float32 whatever the layer computes in, so it tells no dtype, and keeps its own.

    Args:
        old: the layer whose place is taken, or which gets a part.
        new: what takes it, or the part; changed in place.
        net: the network around it; asked where ``old`` holds no tensor, as a ReLU does not.

    Returns:
        ``new``.

    Example:
        >>> old = nn.BatchNorm2d(3).double().eval()
        >>> new = in_place_of(old, nn.Conv2d(3, 3, 1, groups=3))
        >>> new.weight.dtype, new.training
        (torch.float64, False)
    """
    device = next((tensor.device for _, tensor in _tensors(new, old, net)), None)
    own = (tensor for part, tensor in _tensors(new, old, net) if not isinstance(part, Compressor))
    dtype = next((tensor.dtype for tensor in own if tensor.is_floating_point()), None)
    new.to(device, dtype, non_blocking=True).train(old.training)
    return new.requires_grad_(any(parameter.requires_grad for parameter in old.parameters()))


def _tensors(new: nn.Module, *around: nn.Module | None) -> Iterator[tuple[nn.Module, Tensor]]:
    parts = set(new.modules())  # it may be in its place already
    for module in around:
        for part in module.modules() if module is not None else ():
            if part not in parts:
                yield from ((part, tensor) for tensor in (*part.parameters(False), *part.buffers(False)))


def cut_parameter(parameter: nn.Parameter, take: Callable[[Tensor], Tensor]) -> None:
    """Let a parameter and its gradient have fewer entries; whoever holds the parameter holds it still.

    Args:
        parameter: changed in place.
        take: from a tensor of its shape to what stays of it.

    Example:
        >>> weight = nn.Parameter(torch.arange(3.0))
        >>> cut_parameter(weight, lambda tensor: tensor[1:])
        >>> weight
        Parameter containing:
        tensor([1., 2.], requires_grad=True)
    """
    taken, gradient = take(parameter.data), parameter.grad
    # A loss that somebody keeps keeps the node that adds up this parameter's gradient, which knows the old shape and
    # would refuse gradients of the new one. Torch drops that node when the type of a parameter's data changes, not when
    # its shape does: so the data is of another type for a moment.
    other = torch.float16 if taken.dtype != torch.float16 else torch.float32
    parameter.data = taken.new_empty(0, dtype=other)
    parameter.data = taken
    parameter.grad = None if gradient is None else take(gradient)
    if not parameter.is_inference():
        torch.autograd.graph.increment_version(parameter)  # so that no backward pass goes through what was cut
