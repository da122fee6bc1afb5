"""`JointCommit`: commits many compressors in a few operations on long tensors, instead of many on short ones."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import is_
from typing import ClassVar

import torch
from torch import Tensor

from qprune.layers.compressor import Compressor


class JointCommit(ABC):
    """Compressors of one kind, on one device, whose buffers are laid out once for the commits of many steps.

    They are laid out anew when a compressor has other buffers, as after ``.to()`` or `Compressor.select`: `watched`
    names a buffer that is another one whenever any of them is.
    """

    watched: ClassVar[str]

    def __init__(self, parts: Sequence[Compressor]) -> None:
        self.parts = list(parts)
        self._known: list[Tensor] = []

    def commit(self) -> None:
        """Fold what each measured since the last commit into its running means."""
        if not self.parts:
            return
        present = self.buffers(self.watched)
        if not self._known or not all(map(is_, present, self._known)):
            self._lay_out()
            self._known = present
        with torch.inference_mode():
            self._fold()

    def buffers(self, name: str) -> list[Tensor]:
        """One buffer of each; not by attribute, which for many modules takes as long as what is done with them."""
        return [part._buffers[name] for part in self.parts]  # type: ignore[misc]  # none of them is None

    @abstractmethod
    def _lay_out(self) -> None:
        """Make long tensors with room for all buffers."""

    @abstractmethod
    def _fold(self) -> None:
        """Read the buffers, compute on the long tensors, write the buffers."""


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
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device)
