"""Weights of convolutions and linear layers, whichever axis their output channels lie on."""

from typing import Any

from torch import Tensor, nn

TRANSPOSED: tuple[type[Any], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED: tuple[type[Any], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)


def rows(layer: Any, weight: Tensor, groups: int | None = None) -> Tensor:
    """View a tensor of the weight's shape as ``(out, in / groups, ...)``; its own inverse.

    Args:
        layer: a convolution, transposed or not, or a linear layer.
        weight: its weight, or a tensor of that shape.
        groups: how many groups ``weight`` has, by default as many as the layer.

    Example:
        >>> layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
        >>> rows(layer, layer.weight).shape
        torch.Size([6, 2, 3, 3])
    """
    if not isinstance(layer, TRANSPOSED):
        return weight
    return weight.unflatten(0, (groups or layer.groups, -1)).transpose(1, 2).flatten(0, 1)


def output_count(layer: Any) -> int:
    """Output channels of a convolution, or output features of a linear layer."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def input_count(layer: Any) -> int:
    """Input channels of a convolution, or input features of a linear layer."""
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)
