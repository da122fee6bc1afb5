"""``"activation-l1"``: how large a channel's values are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from qprune.importances.importance import Measured, mean_per_channel

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class ActivationL1(Measured):
    """The mean magnitude of a channel's values, in the forwards of training.

    Source: Zhang, Colbert, Das (2022), section on channel importance.

    Example:
        >>> ActivationL1().measure(torch.tensor([[-1.0, 2.0], [3.0, 0.0]]))
        tensor([2., 1.])
    """

    sides: ClassVar[tuple[str, ...]] = ("input", "output")
    by_magnitude: ClassVar[bool] = True

    def measure(self, x: Tensor, axis: int = 1, gradient: Tensor | None = None) -> Tensor:
        """The mean of ``abs(x)`` of each channel; see `Measured.measure`."""
        return mean_per_channel(x.float().abs(), axis)
