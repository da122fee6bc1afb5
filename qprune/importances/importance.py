"""Base classes of importances: the sides at which one may stand, and how it ranks channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # specs ask importances too, and are read without torch
    from torch import Tensor


class Importance:
    """One way to rank the channels of a mask. Each is either `Measured`, or `Scored`, or follows other masks.

    Attributes:
        sides: where a rule may use it: any of ``"input"``, ``"weight"`` and ``"output"``; nothing if no rule may.
        follows: whether the mask takes over what other masks chose, and never chooses itself.
        unrectified: the importance that it falls back to where no ReLU made the values; empty if it does not matter.
        gradient_power: by which power of it a score grows if the loss does, and with it its gradients; 0 if it is
            measured without them, else the backward measures it.
        by_magnitude: whether the score is the mean magnitude of a channel's values.
    """

    __slots__ = ()
    sides: ClassVar[tuple[str, ...]] = ()
    follows: ClassVar[bool] = False
    unrectified: ClassVar[str] = ""
    gradient_power: ClassVar[int] = 0
    by_magnitude: ClassVar[bool] = False

    def problem(self, layer: Any) -> str:
        """Why channels of ``layer`` cannot be ranked so, to be read after the layer's name; empty if they can.

        Example:
            >>> ActivationL1().problem(nn.ReLU())
            ''
        """
        return ""


class Measured(Importance, ABC):
    """An importance that training steps measure: at every forward, or at the backward that follows it.

    Attributes:
        unreached: what did not happen where nothing was measured, for an error.
    """

    __slots__ = ()
    unreached: ClassVar[str] = "no training forward has reached it yet"

    @abstractmethod
    def measure(self, x: Tensor, axis: int = 1, gradient: Tensor | None = None) -> Tensor:
        """Score each channel of ``x``. It must be a mean over values, so that parts of a batch can be averaged.

        Args:
            x: values before they are masked, shape ``(N, C, ...)`` with channels at ``axis``.
            axis: the channel axis.
            gradient: of the loss by the masked values, same shape; only where `gradient_power` is not 0.

        Returns:
            float32 scores of shape ``(C,)``.

        Example:
            >>> ActivationL1().measure(torch.tensor([[[1.0, -3.0], [0.0, 0.5]]]))
            tensor([2.0000, 0.2500])
        """


class Scored(Importance, ABC):
    """An importance that is computed when a mask chooses its channels, from what is there."""

    __slots__ = ()

    @abstractmethod
    def score(self, site: Any, seed: int) -> Tensor:
        """Score each channel of the mask at ``site``.

        Args:
            site: a `qprune.layers.Site`: its ``name``, its ``host`` layer, its ``mask``.
            seed: of the training.

        Returns:
            float32 scores of shape ``(C,)``.

        Example:
            >>> from qprune.layers import sites
            >>> layer = PrunedConv2d(2, 3, 1, at="weight")
            >>> WeightL1().score(next(sites(layer)), seed=0).shape
            torch.Size([3])
        """


def mean_per_channel(values: Tensor, axis: int) -> Tensor:
    """The mean over all dimensions but ``axis``; of a single vector, its values."""
    values, axis = (values, axis) if values.dim() > 1 else (values[None], 1)
    return values.mean([d for d in range(values.dim()) if d != axis % values.dim()])
