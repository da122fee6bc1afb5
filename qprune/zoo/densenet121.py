"""DenseNet-121 for small images: every layer reads the outputs of all the layers before it in its block.

Huang, Liu, van der Maaten, Weinberger, *Densely Connected Convolutional Networks*, 2017 (arXiv:1608.06993): the
DenseNet-BC of table 1, with the 3x3 stem without pooling that section 3 gives for CIFAR.
"""

from torch import Tensor, nn

from qprune.zoo.blocks import scaled
from qprune.zoo.joints import Concat


class DenseLayer(nn.Module):
    """BN-ReLU-conv1x1, BN-ReLU-conv3x3; its ``growth`` new channels are appended to the input.

    Input ``(N, C, H, W)``, output ``(N, C + growth, H, W)``.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.act2 = nn.ReLU()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.concat = Concat()

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with the new channels behind it."""
        new = self.conv1(self.act1(self.norm1(x)))
        new = self.conv2(self.act2(self.norm2(new)))
        return self.concat(x, new)


class Transition(nn.Module):
    """BN, conv1x1, average pooling: half the channels, half the height and width.

    Input ``(N, C, H, W)``, output ``(N, C // 2, H // 2, W // 2)``. There is no ReLU here.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller picture."""
        return self.pool(self.conv(self.norm(x)))


class DenseNet121(nn.Module):
    """DenseNet-121 for images of about 32 x 32 pixels: blocks of 6, 12, 24 and 16 layers.

    Input ``(N, in_channels, H, W)`` with H and W of at least 8, output logits ``(N, classes)``. Weights start as torch
    initializes each layer.

    Args:
        classes: number of logits.
        in_channels: channels of the images.
        width: share of the growth of 32 channels a layer, in (0, 1]; 0.5 grows by 16, 0.25 by 8. All else
            follows from it.
    """

    def __init__(self, classes: int = 100, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        growth = scaled(32, width)
        self.stem = nn.Conv2d(in_channels, 2 * growth, 3, padding=1, bias=False)
        self.block1, channels = _dense_block(6, 2 * growth, growth)
        self.transition1 = Transition(channels)
        self.block2, channels = _dense_block(12, channels // 2, growth)
        self.transition2 = Transition(channels)
        self.block3, channels = _dense_block(24, channels // 2, growth)
        self.transition3 = Transition(channels)
        self.block4, channels = _dense_block(16, channels // 2, growth)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.transition1(self.block1(self.stem(x)))
        x = self.transition2(self.block2(x))
        x = self.transition3(self.block3(x))
        x = self.act(self.norm(self.block4(x)))
        return self.linear(self.pool(x).flatten(1))


def _dense_block(layers: int, in_channels: int, growth: int) -> tuple[nn.Sequential, int]:
    """Dense layers in a row, and the number of channels that leaves the last."""
    block = (DenseLayer(in_channels + i * growth, growth) for i in range(layers))
    return nn.Sequential(*block), in_channels + layers * growth
