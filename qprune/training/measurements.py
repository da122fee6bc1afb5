"""Commits the measurements of a step, of all processes together."""

from collections.abc import Iterable

from torch import Tensor

from qprune.layers import ChannelMask, Commits, FakeQuant, Scores, ranges_of
from qprune.layers.ready import end_ready
from qprune.training import ranks

Part = ChannelMask | FakeQuant


class Measurements:
    """The masks and quantizers, on one device, that measure at present, committed together after each step."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        parts = list(parts)
        self.masks = [part for part in parts if isinstance(part, ChannelMask)]
        self.quants = [part for part in parts if isinstance(part, FakeQuant)]
        self._commits = Commits([*ranges_of(self.quants), Scores(self.masks)])

    def commit(self) -> None:
        """Fold what a step measured into the running means, the same in every process."""
        end_ready()
        self._commits.commit(_Ranks() if ranks.world() > 1 else None)


class _Ranks:
    """`ranks`, for one long tensor."""

    def world(self) -> int:
        return ranks.world()

    def summed(self, values: Tensor) -> Tensor:
        return ranks.summed([values])[0]

    def lowest(self, values: Tensor) -> Tensor:
        return ranks.lowest([values])[0]
