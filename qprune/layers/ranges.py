"""`Ranges`: the running ranges of many quantizers, folded together."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from qprune.layers.strips import Exchange, JointCommit, Strip, owners
from qprune.numerics import RANGES

if TYPE_CHECKING:
    from qprune.layers.quantizer import FakeQuant


class Ranges(JointCommit):
    """The running ranges of quantizers of one kind, folded together, and the step sizes that follow.

    A step that measured nothing, or something that is not finite, leaves its range as it is.

    Args:
        quants: at least one, on one device, of the same numerics and ``ranging``.

    Example:
        >>> Commits([Ranges([FakeQuant(4), FakeQuant(4, channels=3, axis=0, symmetric=True)])]).commit()
    """

    watched: ClassVar[str] = "range"

    def __init__(self, quants: "Sequence[FakeQuant]") -> None:
        self.quants = sorted(quants, key=_grid)
        super().__init__(self.quants)
        self.arithmetic = quants[0].arithmetic
        self._keeps_grids = self.arithmetic.keeps_grid or RANGES[quants[0].ranging].learned

    def gather(self) -> None:
        """Strips of floats, of zero points and of counts; accumulators begin the next step at the range of no values.

        The zero point of a symmetric grid is 0 for ever.
        """
        lows, highs = self.buffers("pending_low"), self.buffers("pending_high")
        ends = [each.view(2, -1) for each in self.buffers("range")]
        scales, zero_points = ([getattr(each, name).detach() for each in self.quants] for name in self.quants[0].stored)
        rows = [lows, highs, [low for low, _ in ends], [high for _, high in ends], scales]
        self._floats = Strip(rows, left=[torch.inf, -torch.inf])
        moving = [zero for quant, zero in zip(self.quants, zero_points, strict=True) if not quant.symmetric]
        self._zero_points = Strip([moving]) if moving else None
        self._seen = Strip([self.buffers("seen")])
        self._sizes = [each.numel() for each in scales]
        self.strips = [strip for strip in (self._floats, self._zero_points, self._seen) if strip is not None]

    def lay_out(self) -> None:
        """Name the rows, look up the quantizer of each entry, and cut out the grids."""
        self._pending, self._range, (scale,) = self._floats.values.split([2, 2, 1])
        self._low, self._high = self._pending
        self._owner = owners(self._sizes, scale.device)
        self._measured = torch.empty_like(scale, dtype=torch.bool)
        zero_points = self._zero_points.values[0] if self._zero_points is not None else scale.new_empty(0)
        rows = (*self._pending, *self._range, self._measured, scale)
        self._grids = _grids(self.quants, self._sizes, zero_points, *rows)

    def merge(self, exchange: Exchange) -> None:
        """Widen the ranges to the values of all processes."""
        low, negated_high = exchange.lowest(torch.stack([self._low, -self._high]))
        self._low.copy_(low)
        torch.neg(negated_high, out=self._high)

    def fold(self) -> None:
        """Fold in what was measured, and let the grids follow."""
        self._look()
        self._average()
        for grid in self._grids:
            grid.follow()

    def _look(self) -> None:
        """Find which entries measured something that counts."""
        for grid in self._grids if self.arithmetic.by_magnitude else ():
            grid.take_magnitudes()
        # x - x is 0 where x is finite, else NaN
        low, high = torch.sub(self._pending, self._pending).unbind()
        torch.eq(low, high, out=self._measured)
        if self._keeps_grids:  # integers that something was computed with keep their meaning
            active = torch.cat([each.view(-1) for each in self.buffers("active")])
            self._measured &= ~active[self._owner]

    def _average(self) -> None:
        (seen,) = self._seen.values
        count = seen.index_select(0, self._owner).add_(self._measured)
        seen.scatter_reduce_(0, self._owner, count, "amax")
        mean = torch.lerp(self._range, self._pending, count.reciprocal().clamp_(min=self.arithmetic.least))
        torch.where(self._measured, mean, self._range, out=self._range)


class _Grid(NamedTuple):
    """The entries of all quantizers that have the same grid as one of them."""

    quant: "FakeQuant"
    zero_point: Tensor
    seen_low: Tensor
    seen_high: Tensor
    low: Tensor
    high: Tensor
    measured: Tensor
    scale: Tensor

    def take_magnitudes(self) -> None:
        """Let the larger end that a step measured be the largest magnitude, where the range is symmetric."""
        if self.quant.symmetric:
            torch.maximum(-self.seen_low, self.seen_high, out=self.seen_high)

    def follow(self) -> None:
        """Let step size and zero point follow the ranges that were measured."""
        scale, zero_point = self.quant.stored_grid(self.low, self.high)
        torch.where(self.measured, scale, self.scale, out=self.scale)
        if not self.quant.symmetric:
            torch.where(self.measured, zero_point, self.zero_point, out=self.zero_point)


def _grid(quant: "FakeQuant") -> tuple[bool, int]:
    return quant.symmetric, quant.bits


def _grids(quants: "Sequence[FakeQuant]", sizes: Sequence[int], zero_points: Tensor, *rows: Tensor) -> list[_Grid]:
    """Cut rows of entries where the grid changes, and zero points, which symmetric ones have none of."""
    groups = [list(group) for _, group in groupby(zip(quants, sizes, strict=True), lambda pair: _grid(pair[0]))]
    counts = [sum(size for _, size in group) for group in groups]
    zeros = zero_points.split(
        [0 if group[0][0].symmetric else size for group, size in zip(groups, counts, strict=True)]
    )
    cuts: Any = zip(zeros, *(row.split(counts) for row in rows), strict=True)
    return [_Grid(group[0][0], *cut) for group, cut in zip(groups, cuts, strict=True)]


def ranges_of(quants: "Sequence[FakeQuant]") -> list[Ranges]:
    """The `Ranges` of quantizers of any numerics.

    Example:
        >>> [each.arithmetic for each in ranges_of([FakeQuant(4), FakeQuant(4, numerics="exact"), FakeQuant(8)])]
        [Default(), Exact()]
    """
    groups: dict[tuple[str, str], list[FakeQuant]] = {}
    for quant in quants:
        groups.setdefault((quant.numerics, quant.ranging), []).append(quant)
    return [Ranges(alike) for alike in groups.values()]
