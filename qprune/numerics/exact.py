"""``"exact"``: grids on which float32 arithmetic is integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from qprune.numerics.default import Default
from qprune.numerics.numerics import SMALLEST_LEARNED

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_STEP = 2.0**-40  # a product of two has room in a float32


@frozen
class Exact(Default):
    """Powers of two as scales, and even zero points, which stay from when a quantizer is active; see `qprune.exact`.

    Products and sums of what lies on such grids are exact as long as their integers are. Zero points are even: then a
    kernel may round before it adds the zero point, or after. A range of nothing but 0 gets a scale as for values of
    about 1.

    Biases are rounded to the grid of the integers that they are added to, so a grid that moved would change what was
    computed already. Normalizations are folded at the start of a run.

    Example:
        >>> Exact().scale_and_zero_point(torch.tensor(-1.0), torch.tensor(2.0), 4, symmetric=False)
        (tensor(0.2500), tensor(4, dtype=torch.int32))
    """

    keeps_grid: ClassVar[bool] = True
    remakes: ClassVar[bool] = True

    def scale_and_zero_point(self, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
        """The next powers of two up; see `Numerics.scale_and_zero_point`."""
        import torch  # not at the top: specs are read without it

        first, last = self.code_bounds(bits, symmetric)
        scale, zero = super().scale_and_zero_point(low, high, bits, symmetric)
        empty = scale <= torch.finfo(torch.float32).tiny
        scale = power_of_two(torch.where(empty, 1 / last, scale).clamp(SMALLEST_STEP, 1 / SMALLEST_STEP))
        if symmetric:
            return scale, zero
        zero_point = 2 * ((first - low.float().clamp(max=0) / scale) / 2).round()
        return scale, zero_point.clamp(0, last - last % 2).to(torch.int32)

    def nearest_step(self, wanted: Tensor) -> Tensor:
        """The power of two whose logarithm is nearest; see `Numerics.nearest_step`.

        Not the next one up, which a range takes: steps begin at a power of two, from where that would double with the
        smallest move.
        """
        return power_of_two(wanted.clamp(SMALLEST_LEARNED, 1 / SMALLEST_LEARNED) * 0.5**0.5)

    def nearest_zero_point(self, wanted: Tensor, low: int, high: int) -> Tensor:
        """The nearest even number; see `Numerics.nearest_zero_point`."""
        return ((wanted / 2).round() * 2).clamp(low, high - high % 2)


def power_of_two(scale: Tensor) -> Tensor:
    """The smallest power of two that is not below each positive ``scale``.

    Example:
        >>> power_of_two(torch.tensor([0.3, 0.5, 3.0]))
        tensor([0.5000, 0.5000, 4.0000])
    """
    mantissa, exponent = scale.frexp()
    return scale.new_ones(scale.shape).ldexp(exponent - (mantissa == 0.5).int())
