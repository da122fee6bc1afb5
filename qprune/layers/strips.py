"""`Commits`: commits many compressors in a few operations on long tensors, instead of many on short ones."""

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

    `Commits` carries out its commits.

    Attributes:
        watched: a buffer that is another one whenever any of them is.
        strips: what is read before a commit and written after it.
    """

    watched: ClassVar[str]
    strips: "Sequence[Strip]"

    def __init__(self, parts: Sequence[Compressor]) -> None:
        self.parts = list(parts)

    def buffers(self, name: str) -> list[Tensor]:
        """One buffer of each; not by attribute, which for many modules takes as long as what is done with them."""
        return [part._buffers[name] for part in self.parts]  # type: ignore[misc]  # none of them is None

    @abstractmethod
    def gather(self) -> None:
        """Make `strips` of the buffers that the compressors have now."""

    @abstractmethod
    def lay_out(self) -> None:
        """Cut the strips, which have their values by now, into what is computed with."""

    @abstractmethod
    def merge(self, exchange: Exchange) -> None:
        """Have the processes exchange what was measured, in one long tensor."""

    @abstractmethod
    def fold(self) -> None:
        """Compute on the long tensors."""


class Commits:
    """Joint commits of one network, whose buffers of one dtype are read by one operation and written by one.

    They are laid out anew when a compressor has other buffers, as after ``.to()`` or `Compressor.select`.

    Args:
        joint: the commits of compressors of one kind, in the order in which they are carried out.

    Example:
        >>> mask = ChannelMask(2)
        >>> commits = Commits([Scores([mask]), *ranges_of([FakeQuant(4), FakeQuant(3)])])
        >>> mask.train().measuring = True
        >>> for _ in range(2):
        ...     _ = mask(torch.tensor([[1.0, 2.0]]))
        ...     commits.commit()
        >>> mask.score, mask.seen
        (tensor([1., 2.]), tensor(2))
    """

    def __init__(self, joint: Sequence[JointCommit]) -> None:
        self._joint = [each for each in joint if each.parts]
        self._known: list[Tensor] = []
        self._pools: list[_Pool] = []

    def commit(self, exchange: Exchange | None = None) -> None:
        """Fold what each compressor measured since the last commit into its running means.

        Args:
            exchange: with the processes that train together, which then all fold in what all of them measured.
        """
        present = [buffer for each in self._joint for buffer in each.buffers(each.watched)]
        if not self._known or not all(map(is_, present, self._known)):
            self._lay_out()
            self._known = present
        with torch.inference_mode():
            for pool in self._pools:
                pool.read()
            for each in self._joint:
                if exchange is not None:
                    each.merge(exchange)
                each.fold()
            for pool in self._pools:
                pool.write()

    def _lay_out(self) -> None:
        alike: dict[tuple[torch.dtype, torch.device], list[Strip]] = {}
        for each in self._joint:
            each.gather()
            for strip in each.strips:
                alike.setdefault(strip.kind, []).append(strip)
        self._pools = [_Pool(strips) for strips in alike.values()]
        for each in self._joint:
            each.lay_out()


class Strip:
    """Buffers of one dtype, on one device, in rows of as many entries each, and one tensor with room for all of them.

    Args:
        rows: the buffers of each row.
        left: the numbers that the buffers of the first rows are left with, whatever ``values`` hold, when the others
            are written.

    Attributes:
        values: shape ``(rows, entries)``; a part of a longer tensor, see `Commits`.
    """

    values: Tensor

    def __init__(self, rows: Sequence[Sequence[Tensor]], left: Sequence[float] = ()) -> None:
        self.rows = [[buffer.view(-1) for buffer in row] for row in rows]
        self._left = left

    @property
    def kind(self) -> tuple[torch.dtype, torch.device]:
        """Dtype and device."""
        return self.rows[0][0].dtype, self.rows[0][0].device

    @property
    def entries(self) -> int:
        """How many numbers it has room for."""
        return sum(buffer.numel() for row in self.rows for buffer in row)

    def place(self, flat: Tensor) -> list[Tensor]:
        """Let ``flat`` be the room for the values; returns what is to be written into each of the buffers."""
        self.values = flat.view(len(self.rows), -1)
        # constants lie ready: to fill the rows anew would be an operation for each of them, in every step
        constants = [torch.full_like(row, number) for row, number in zip(self.values, self._left, strict=False)]
        sources = [*constants, *self.values[len(constants) :]]
        return [
            part
            for source, row in zip(sources, self.rows, strict=True)
            for part in source.split([buffer.numel() for buffer in row])
        ]


class _Pool:
    """Strips of one dtype, on one device, side by side in one long tensor."""

    def __init__(self, strips: Sequence[Strip]) -> None:
        self._buffers = [buffer for strip in strips for row in strip.rows for buffer in row]
        self._flat = torch.cat(self._buffers)
        places = self._flat.split([strip.entries for strip in strips])
        self._sources = [part for strip, flat in zip(strips, places, strict=True) for part in strip.place(flat)]

    def read(self) -> None:
        """Copy the buffers into the strips."""
        torch.cat(self._buffers, out=self._flat)

    def write(self) -> None:
        """Copy what the strips say into the buffers."""
        torch._foreach_copy_(self._buffers, self._sources)


def owners(sizes: Sequence[int], device: torch.device) -> Tensor:
    """For each entry of one long tensor, the number of the part that it belongs to."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device, non_blocking=True)
