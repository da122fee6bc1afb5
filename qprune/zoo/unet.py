"""U-Net: a contracting path, an expanding path, and a skip from each level of the one to the same level of the other.

Ronneberger, Fischer, Brox, *U-Net: Convolutional Networks for Biomedical Image Segmentation*, 2015 (arXiv:1505.04597),
figure 1, in the form that is common today: padded convolutions, so that the output has the input's size, and batch
normalization.
"""

from collections import OrderedDict

from torch import Tensor, nn

from qprune.zoo.blocks import scaled
from qprune.zoo.joints import Concat


class Down(nn.Module):
    """Max pooling, then two convolutions: half the height and width.

    Input ``(N, in_channels, H, W)``, output ``(N, out_channels, H // 2, W // 2)``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.convs = _double_conv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller picture."""
        return self.convs(self.pool(x))


class Up(nn.Module):
    """A transposed convolution doubles height and width, the skip is put before it, two convolutions follow.

    Input ``(N, in_channels, H, W)`` and a skip ``(N, out_channels, 2 * H, 2 * W)``, output of the skip's shape.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.concat = Concat()
        self.convs = _double_conv(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the larger picture."""
        return self.convs(self.concat(skip, self.grow(x)))


class UNet(nn.Module):
    """U-Net with five levels of 64, 128, 256, 512 and 1024 channels, for segmentation.

    Input ``(N, in_channels, H, W)`` with H and W multiples of 16 (``stride``), output logits ``(N, classes, H, W)``.
    Weights start as torch initializes each layer.

    Args:
        classes: number of logits of each pixel.
        in_channels: channels of the images.
        width: share of every level's channels, in (0, 1].
    """

    stride = 16

    def __init__(self, classes: int = 19, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (scaled(channels, width) for channels in (64, 128, 256, 512, 1024))
        self.stem = _double_conv(in_channels, c1)
        self.down1 = Down(c1, c2)
        self.down2 = Down(c2, c3)
        self.down3 = Down(c3, c4)
        self.down4 = Down(c4, c5)
        self.up4 = Up(c5, c4)
        self.up3 = Up(c4, c3)
        self.up2 = Up(c3, c2)
        self.up1 = Up(c2, c1)
        self.classifier = nn.Conv2d(c1, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every pixel."""
        level1 = self.stem(x)
        level2 = self.down1(level1)
        level3 = self.down2(level2)
        level4 = self.down3(level3)
        x = self.up4(self.down4(level4), level4)
        x = self.up3(x, level3)
        x = self.up2(x, level2)
        x = self.up1(x, level1)
        return self.classifier(x)


def _double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Conv3x3-BN-ReLU twice."""
    layers = OrderedDict(
        conv1=nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        norm1=nn.BatchNorm2d(out_channels),
        act1=nn.ReLU(),
        conv2=nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(out_channels),
        act2=nn.ReLU(),
    )
    return nn.Sequential(layers)
