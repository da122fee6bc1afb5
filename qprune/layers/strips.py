"""`JointCommit`: commits many compressors in a few operations on long tensors, instead of many on short ones."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import is_
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from qprune.layers.compressor import Compressor


class Exchange(Protocol):
    """What processes that train together tell each other; every one of them must ask, for tensors of one size."""

    def world(self) -> int:
        """How many they are."""

    def summed(self, values: Tensor) -> Tensor:
        """The sums over all processes, in float64."""

    def lowest(self, values: Tensor) -> Tensor:
        """The smallest values of all processes, place by place, in float32."""


class JointCommit(ABC):
    """Compressors of one kind, on one device, whose buffers are laid out once for the commits of many steps.

    They are laid out anew when a compressor has other buffers, as after ``.to()`` or `Compressor.select`: `watched`
    names a buffer that is another one whenever any of them is.
    """

    watched: ClassVar[str]
    strips: "Sequence[Strip]"

    def __init__(self, parts: Sequence[Compressor]) -> None:
        self.parts = list(parts)
        self._known: list[Tensor] = []

    def commit(self, exchange: Exchange | None = None) -> None:
        """Fold what each measured since the last commit into its running means.

        Args:
            exchange: with the processes that train together, which then all fold in what all of them measured.
        """
        if not self.parts:
            return
        present = self.buffers(self.watched)
        if not self._known or not all(map(is_, present, self._known)):
            self._lay_out()
            self._known = present
        with torch.inference_mode():
            for strip in self.strips:
                strip.read()
            if exchange is not None:
                self._merge(exchange)
            self._fold()
            for strip in self.strips:
                strip.write()

    def buffers(self, name: str) -> list[Tensor]:
        """One buffer of each; not by attribute, which for many modules takes as long as what is done with them."""
        return [part._buffers[name] for part in self.parts]  # type: ignore[misc]  # none of them is None

    @abstractmethod
    def _lay_out(self) -> None:
        """Make `strips`, long tensors with room for all buffers."""

    @abstractmethod
    def _merge(self, exchange: Exchange) -> None:
        """Have the processes exchange what was measured, in one long tensor."""

    @abstractmethod
    def _fold(self) -> None:
        """Compute on the long tensors."""


class Strip:
    """Buffers, and one long tensor with room for all of them.

    Args:
        buffers: of one dtype, on one device; several rows of as many entries each, or one.
        rows: into how many rows of equal length ``values`` is cut.

    Attributes:
        values: shape ``(rows, entries)``.

    Example:
        >>> strip = Strip([torch.tensor(1.0), torch.tensor([2.0, 3.0])])
        >>> strip.read()
        >>> strip.values
        tensor([[1., 2., 3.]])
    """

    def __init__(self, buffers: Sequence[Tensor], rows: int = 1) -> None:
        self._buffers = [buffer.view(-1) for buffer in buffers]
        flat = torch.cat(self._buffers)
        self._parts = flat.split([buffer.numel() for buffer in buffers])
        self._flat, self.values = flat, flat.view(rows, -1)

    def read(self) -> None:
        """Copy the buffers into ``values``."""
        torch.cat(self._buffers, out=self._flat)

    def write(self) -> None:
        """Copy ``values`` into the buffers."""
        torch._foreach_copy_(self._buffers, self._parts)


def owners(sizes: Sequence[int], device: torch.device) -> Tensor:
    """For each entry of one long tensor, the number of the part that it belongs to."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device, non_blocking=True)
