"""The U-Net generator of pix2pix: eight strided convolutions down to one pixel, eight transposed ones back up.

Isola, Zhu, Zhou, Efros, *Image-to-Image Translation with Conditional Adversarial Networks*, 2017 (arXiv:1611.07004),
appendix 6.1.1, in the form of the published pruning experiments: convolution, normalization and ReLU in this order on
both sides (no leaky ReLU), a normalization in the first layer too, and no dropout.
"""

from collections import OrderedDict

from torch import Tensor, nn

from qprune.zoo.blocks import conv_norm_act, scaled, start_small
from qprune.zoo.joints import Concat


class Up(nn.Module):
    """Transposed conv4x4-BN-ReLU, which doubles height and width; the skip is put before the result.

    Input ``(N, in_channels, H, W)`` and a skip ``(N, C, H', W')`` with ``H' = 2 * H`` and ``W' = 2 * W``, output
    ``(N, C + out_channels, H', W')``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()
        self.concat = Concat()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the larger picture with the skip before it."""
        return self.concat(skip, self.act(self.norm(self.conv(x))))


class UNet256(nn.Module):
    """Turns one kind of image into another, with a skip at each of seven sizes.

    Input ``(N, in_channels, H, W)``, values about [-1, 1], with H and W multiples of 256 (``stride``); output
    ``(N, out_channels, H, W)`` in [-1, 1]. Weights start small (`start_small`).

    Args:
        in_channels: channels of the images that come in.
        out_channels: channels of the images that go out.
        width: share of every layer's channels, in (0, 1], the images' own excepted.
    """

    stride = 256

    def __init__(self, in_channels: int = 3, out_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4 = (scaled(channels, width) for channels in (64, 128, 256, 512))
        self.down1 = _down(in_channels, c1)
        self.down2 = _down(c1, c2)
        self.down3 = _down(c2, c3)
        self.down4 = _down(c3, c4)
        self.down5 = _down(c4, c4)
        self.down6 = _down(c4, c4)
        self.down7 = _down(c4, c4)
        # one pixel is left, which has no statistics to normalize by
        smallest = nn.Conv2d(c4, c4, 4, stride=2, padding=1, bias=False)
        self.bottleneck = nn.Sequential(OrderedDict(conv=smallest, act=nn.ReLU()))
        self.up7 = Up(c4, c4)
        self.up6 = Up(2 * c4, c4)
        self.up5 = Up(2 * c4, c4)
        self.up4 = Up(2 * c4, c4)
        self.up3 = Up(2 * c4, c3)
        self.up2 = Up(2 * c3, c2)
        self.up1 = Up(2 * c2, c1)
        self.to_image = nn.ConvTranspose2d(2 * c1, out_channels, 4, stride=2, padding=1)
        self.tanh = nn.Tanh()
        self.apply(start_small)

    def forward(self, x: Tensor) -> Tensor:
        """Return the translated images."""
        level1 = self.down1(x)
        level2 = self.down2(level1)
        level3 = self.down3(level2)
        level4 = self.down4(level3)
        level5 = self.down5(level4)
        level6 = self.down6(level5)
        level7 = self.down7(level6)
        x = self.up7(self.bottleneck(level7), level7)
        x = self.up6(x, level6)
        x = self.up5(x, level5)
        x = self.up4(x, level4)
        x = self.up3(x, level3)
        x = self.up2(x, level2)
        x = self.up1(x, level1)
        return self.tanh(self.to_image(x))


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return conv_norm_act(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False))
