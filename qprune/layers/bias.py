"""`BiasQuant`: rounds a bias to the grid of the integer sums that it is added to."""

import torch
from torch import Tensor

from qprune.layers.compressor import Compressor
from qprune.rounding import fake_quantize

LARGEST = 2**22  # in steps; with sums of less than 2**24 - 2**22 every float32 on the way is exact


class BiasQuant(Compressor):
    """Rounds to whole steps of a layer's integer sums once active; passes values through before that.

    Input and output ``(channels,)``; gradients pass straight through.

    Args:
        channels: of the bias.
        levels: the largest integer among the layer's inputs, counted from its zero point.
        device: where the buffers live.

    Attributes:
        scale: float32 ``(channels,)``, one step: that of the input times that of the weight.
        active: whether it rounds.

    Example:
        >>> quant = BiasQuant(2, levels=15)
        >>> quant.settle(torch.tensor([0.5, 0.25]))
        >>> quant(torch.tensor([0.7, 0.7]))
        tensor([0.5000, 0.7500])
    """

    scale: Tensor
    active: Tensor

    def __init__(self, channels: int, levels: int, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        self.register_state(device)

    def fresh(self) -> dict[str, Tensor]:
        """Inactive, steps of 1."""
        return {"scale": torch.ones(self.channels), "active": torch.zeros((), dtype=torch.bool)}

    def forward(self, bias: Tensor) -> Tensor:
        """Round if active."""
        return torch.where(self.active, fake_quantize(bias, self.scale, None, -LARGEST, LARGEST, axis=0), bias)

    def settle(self, scale: Tensor) -> None:
        """Set the steps and become active."""
        self.scale.copy_(scale)
        self.active.fill_(True)

    def select(self, channels: Tensor) -> None:
        """Keep the steps of these channels alone."""
        self.scale = self.scale[channels.to(self.scale.device, non_blocking=True)]
        self.channels = len(channels)

    def extra_repr(self) -> str:
        """The number of channels."""
        return f"{self.channels}"
