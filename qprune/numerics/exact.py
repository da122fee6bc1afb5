"""``"exact"``: grids on which float32 arithmetic is integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from qprune.numerics.numerics import SMALLEST_LEARNED, Numerics

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Exact(Numerics):
    """Powers of two as scales, and even zero points, which stay from when a quantizer is active; see `qprune.exact`.

    Biases are rounded to the grid of the integers that they are added to, so a grid that moved would change what was
    computed already. Normalizations are folded at the start of a run.

    Example:
        >>> Exact().scale_and_zero_point(torch.tensor(-1.0), torch.tensor(2.0), 4, symmetric=False)
        (tensor(0.2500), tensor(4, dtype=torch.int32))
    """

    keeps_grid: ClassVar[bool] = True
    remakes: ClassVar[bool] = True

    def scale_and_zero_point(self, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
        """As `qprune.functional.exact_scale_and_zero_point`; see `Numerics.scale_and_zero_point`."""
        from qprune.functional import exact_scale_and_zero_point  # not at the top: specs are read without torch

        return exact_scale_and_zero_point(low, high, bits, symmetric)

    def nearest_step(self, wanted: Tensor) -> Tensor:
        """The power of two whose logarithm is nearest; see `Numerics.nearest_step`.

        Not the next one up, which a range takes: steps begin at a power of two, from where that would double with the
        smallest move.
        """
        from qprune.functional import power_of_two  # not at the top: specs are read without torch

        return power_of_two(wanted.clamp(SMALLEST_LEARNED, 1 / SMALLEST_LEARNED) * 0.5**0.5)

    def nearest_zero_point(self, wanted: Tensor, low: int, high: int) -> Tensor:
        """The nearest even number; see `Numerics.nearest_zero_point`."""
        return ((wanted / 2).round() * 2).clamp(low, high - high % 2)
