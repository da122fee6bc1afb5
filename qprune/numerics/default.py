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

    Values beyond half of the largest float count as that half, so that no point of the grid overflows.

    Source: Jacob et al. (2018), arXiv:1712.05877.

    Example:
        >>> Default().scale_and_zero_point(torch.tensor(-1.0), torch.tensor(2.0), 2, symmetric=False)
        (tensor(1.), tensor(1, dtype=torch.int32))
    """

    def scale_and_zero_point(self, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
        """Steps over the widened range; see `Numerics.scale_and_zero_point`."""
        import torch  # not at the top: specs are read without it

        _, last = self.code_bounds(bits, symmetric)
        largest, tiny = torch.finfo(torch.float32).max / 2, torch.finfo(torch.float32).tiny
        if symmetric:
            # bounded before the division, by what it makes the smallest number of: one operation instead of two
            scale = torch.maximum(-low.float(), high.float()).clamp_(tiny * last, largest).div_(last)
            return scale, torch.zeros_like(scale, dtype=torch.int32)
        low, high = low.float().clamp(-largest, 0), high.float().clamp(0, largest)
        scale = (high - low).div_(last).clamp_(min=tiny)
        return scale, (low / scale).neg_().round_().to(torch.int32)  # from 0 up
