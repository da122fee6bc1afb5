"""The residual generator of CycleGAN: two convolutions down, residual blocks, two transposed convolutions up.

Zhu, Park, Isola, Efros, *Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks*, 2017
(arXiv:1703.10593), section 7.2; the blocks are those of Johnson, Alahi, Fei-Fei (2016, arXiv:1603.08155).
"""

from functools import partial

from torch import Tensor, nn

from qprune.zoo.blocks import conv_norm_act, scaled, start_small
from qprune.zoo.joints import Add

_block = partial(conv_norm_act, norm=nn.InstanceNorm2d)


class ResidualBlock(nn.Module):
    """Conv3x3-IN-ReLU-conv3x3-IN with reflected borders, added to the input.

    Input and output ``(N, C, H, W)`` with H and W of at least 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pad1 = nn.ReflectionPad2d(1)
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.norm1 = nn.InstanceNorm2d(channels)
        self.act1 = nn.ReLU()
        self.pad2 = nn.ReflectionPad2d(1)
        self.conv2 = nn.Conv2d(channels, channels, 3)
        self.norm2 = nn.InstanceNorm2d(channels)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus the residual."""
        residual = self.act1(self.norm1(self.conv1(self.pad1(x))))
        residual = self.norm2(self.conv2(self.pad2(residual)))
        return self.add(x, residual)


class ResNetGenerator(nn.Module):
    """Turns one kind of image into another: residual blocks of 256 channels at a quarter of the size.

    Input ``(N, in_channels, H, W)``, values about [-1, 1], with H and W multiples of 4 (``stride``) of at least 8;
    output ``(N, out_channels, H, W)`` in [-1, 1]. Every convolution has a bias; instance normalization has no
    parameters. Weights start small (`start_small`).

    Args:
        in_channels: channels of the images that come in.
        out_channels: channels of the images that go out.
        blocks: number of residual blocks: 6 (for images of about 128 pixels) or 9 (256 and more).
        width: share of every layer's channels, in (0, 1], the images' own excepted.
    """

    stride = 4

    def __init__(self, in_channels: int = 3, out_channels: int = 3, blocks: int = 6, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3 = (scaled(channels, width) for channels in (64, 128, 256))
        self.pad1 = nn.ReflectionPad2d(3)
        self.stem = _block(nn.Conv2d(in_channels, c1, 7))
        self.down1 = _block(nn.Conv2d(c1, c2, 3, stride=2, padding=1))
        self.down2 = _block(nn.Conv2d(c2, c3, 3, stride=2, padding=1))
        self.blocks = nn.Sequential(*(ResidualBlock(c3) for _ in range(blocks)))
        self.up2 = _block(nn.ConvTranspose2d(c3, c2, 3, stride=2, padding=1, output_padding=1))
        self.up1 = _block(nn.ConvTranspose2d(c2, c1, 3, stride=2, padding=1, output_padding=1))
        self.pad2 = nn.ReflectionPad2d(3)
        self.to_image = nn.Conv2d(c1, out_channels, 7)
        self.tanh = nn.Tanh()
        self.apply(start_small)

    def forward(self, x: Tensor) -> Tensor:
        """Return the translated images."""
        x = self.stem(self.pad1(x))
        x = self.blocks(self.down2(self.down1(x)))
        x = self.up1(self.up2(x))
        return self.tanh(self.to_image(self.pad2(x)))
