"""``"taylor"``: how much the loss would change without a channel's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from qprune.importances.importance import Measured, mean_per_channel

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Taylor(Measured):
    """The mean of ``(x * g)**2`` over a channel's values ``x``, with ``g`` the gradient of the loss, in training.

    ``x * g`` is the change of the loss, to first order, when one value is set to 0. It is squared value by value and
    then averaged over images and places: the sum over parameters of Molchanov et al. (their second form of a set's
    importance), taken of activations; their gates, which first add a channel's products up and then square, are not
    this. ``x`` is the value before the mask and ``g`` the gradient behind it, so a dropped channel is ranked by what
    its return would change.

    It is measured in the backward that follows a forward, at a hook that is there only while a mask measures; a copy of
    the masked tensor is kept until then. The loss must have one scale all the time, so scaled losses (float16) are
    refused by the trainer; a loop of one's own must not scale its loss either.

    Source: Molchanov et al. (2019), arXiv:1906.10771.

    Example:
        >>> Taylor().measure(torch.tensor([[1.0, 3.0]]), gradient=torch.tensor([[0.5, -1.0]]))
        tensor([0.2500, 9.0000])
    """

    sides: ClassVar[tuple[str, ...]] = ("input", "output")
    gradient_power: ClassVar[int] = 2
    unreached: ClassVar[str] = "no training backward has reached it yet"

    def measure(self, x: Tensor, axis: int = 1, gradient: Tensor | None = None) -> Tensor:
        """The mean of ``(x * gradient)**2`` of each channel; see `Measured.measure`."""
        assert gradient is not None  # as gradient_power asks for
        return mean_per_channel((x.float() * gradient.float()).square(), axis)
