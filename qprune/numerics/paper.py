"""``"paper"``: the published rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from qprune.numerics.numerics import Numerics, channel_extremes

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Paper(Numerics):
    """2^b steps over the range, a running mean of equal weights; for activations a zero point that eval alone rounds.

    The range of a tensor is that of its kept channels, and need not contain 0; the one of weights is the mean of their
    largest magnitudes.

    Source: Zhang, Colbert, Das (2022).

    Example:
        >>> Paper().scale_and_zero_point(torch.tensor(-1.0), torch.tensor(3.0), 2, symmetric=False)
        (tensor(1.), tensor(1, dtype=torch.int32))
    """

    least: ClassVar[float] = 0.0
    by_magnitude: ClassVar[bool] = True
    learnable: ClassVar[bool] = False
    from_zero: ClassVar[bool] = False

    def code_bounds(self, bits: int, symmetric: bool) -> tuple[int, int]:
        """All 2^b integers, also of weights; see `Numerics.code_bounds`."""
        low, high = super().code_bounds(bits, symmetric)
        return (low - 1, high) if symmetric else (low, high)

    def scale_and_zero_point(self, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
        """The published step sizes; see `Numerics.scale_and_zero_point`."""
        import torch  # not at the top: specs are read without it

        if symmetric:
            scale = high / 2 ** (bits - 1)
            return scale.clamp(min=torch.finfo(torch.float32).tiny), torch.zeros_like(scale, dtype=torch.int32)
        scale = (high - low) / 2**bits
        scale = torch.where(scale == 0, 1e-4, scale)  # the published rule for a constant tensor
        return scale, -(low / scale).round().to(torch.int32)

    def extremes(
        self, x: Tensor, keep: Tensor | None = None, axis: int = 1, nonnegative: bool = False
    ) -> tuple[Tensor | float, Tensor | float]:
        """The smallest and largest value of the kept channels; see `Numerics.extremes`."""
        if keep is None:
            return x.amin(), x.amax()
        low, high = channel_extremes(x, axis)
        return low.where(keep, float("inf")).amin(), high.where(keep, float("-inf")).amax()

    def origin(self, ends: Tensor, symmetric: bool) -> Tensor | None:
        """The lower end of the range, for activations; see `Numerics.origin`."""
        return None if symmetric else ends[0]
