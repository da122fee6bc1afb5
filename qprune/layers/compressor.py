"""What masks and quantizers share: state that is visible at birth and starts fresh from a dense checkpoint."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors

log = logging.getLogger(__name__)


class Compressor(nn.Module, ABC):
    """A mask or a quantizer: measures in training forwards, and changes only when the driver commits between steps.

    Attributes:
        measuring: whether training forwards add to the accumulators; set by the driver.
    """

    def __init__(self) -> None:
        super().__init__()
        self.measuring = False

    @abstractmethod
    def fresh(self) -> dict[str, Tensor]:
        """The saved state of a compressor that has done nothing yet: each of its buffers with its harmless value."""

    @abstractmethod
    def forget(self) -> None:
        """Drop what the forwards of this step measured."""

    @abstractmethod
    def select(self, channels: Tensor) -> None:
        """Go on with these channels alone, given by their numbers; what it knows about them stays as it is."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Compressor":
        # .to(dtype) is for the layer's arithmetic, not for scores and scales: as a float16 a small scale is 0.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        fresh = self.fresh()
        missing = [name for name in fresh if prefix + name not in state_dict]
        if len(missing) == len(fresh):
            log.info("%s: the checkpoint has no state for it, it starts fresh", prefix.rstrip("."))
            state_dict.update({prefix + name: value for name, value in fresh.items()})
        elif missing:
            lists[2].append(
                f'"{prefix.rstrip(".")}" is incomplete: {", ".join(missing)} missing. '
                "Load all of its entries, or none of them to start fresh."
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)


def buffers_of(parts: Sequence[Compressor], name: str) -> list[Tensor]:
    """One buffer of each; not by attribute, which for many modules takes as long as what is done with the buffers.

    Example:
        >>> buffers_of([ChannelMask(2), ChannelMask(3)], "seen")
        [tensor(0), tensor(0)]
    """
    return [part._buffers[name] for part in parts]  # type: ignore[misc]  # none of them is None


@lru_cache(maxsize=256)
def owners(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """For each entry of one long tensor, the number of the part that it belongs to; not to be changed.

    Args:
        sizes: entries of each part, in their order.
        device: where to.

    Example:
        >>> owners((1, 3), torch.device("cpu"))
        tensor([0, 1, 1, 1])
    """
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device)


def spread(values: Tensor, buffers: list[Tensor]) -> None:
    """Copy one long tensor into many buffers, in their order.

    Example:
        >>> spread(torch.arange(5), [mask.score for mask in (ChannelMask(2), ChannelMask(3))])
    """
    torch._foreach_copy_(buffers, list(_unflatten_dense_tensors(values, buffers)))
