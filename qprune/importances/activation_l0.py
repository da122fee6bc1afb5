"""``"activation-l0"``: how many of a channel's values are not zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from qprune.importances.importance import Measured, mean_per_channel

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class ActivationL0(Measured):
    """The share of a channel's values that are not zero, in the forwards of training.

    Where the smallest value of the tensor is not 0 (nothing rectified it) that would not tell channels apart, and the
    mean magnitude is taken, as published.

    Source: Zhang, Colbert, Das (2022), section on channel importance.

    Example:
        >>> ActivationL0().measure(torch.tensor([[0.0, 2.0], [3.0, 9.0]]))
        tensor([0.5000, 1.0000])
    """

    sides: ClassVar[tuple[str, ...]] = ("input", "output")
    unrectified: ClassVar[str] = "activation-l1"

    def measure(self, x: Tensor, axis: int = 1, gradient: Tensor | None = None) -> Tensor:
        """The mean of ``x != 0`` of each channel, or of ``abs(x)``; see `Measured.measure`."""
        x = x.float()
        share = mean_per_channel((x != 0).float(), axis)
        return share.where(x.amin() == 0, mean_per_channel(x.abs(), axis))
