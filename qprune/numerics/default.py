"""``"default"``: integer zero points, in training as in eval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from qprune.numerics.numerics import Numerics

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Default(Numerics):
    """2^b - 1 steps over a range that is widened to contain 0; 0 is a point of the grid.

    Source: Jacob et al. (2018), arXiv:1712.05877.

    Example:
        >>> Default().scale_and_zero_point(torch.tensor(-1.0), torch.tensor(2.0), 2, symmetric=False)
        (tensor(1.), tensor(1, dtype=torch.int32))
    """

    def scale_and_zero_point(self, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
        """As `qprune.functional.scale_and_zero_point`; see `Numerics.scale_and_zero_point`."""
        from qprune.functional import scale_and_zero_point  # not at the top: specs are read without torch

        return scale_and_zero_point(low, high, bits, symmetric)
