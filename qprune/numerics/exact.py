"""``"exact"``: grids on which float32 arithmetic is integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from qprune.numerics.numerics import Numerics

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
