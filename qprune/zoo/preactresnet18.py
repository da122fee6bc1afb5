"""PreActResNet-18 for small images: normalization and ReLU come before each convolution, so the skips stay linear.

He, Zhang, Ren, Sun, *Identity Mappings in Deep Residual Networks*, 2016 (arXiv:1603.05027), figure 4e, with the 3x3
stem that ResNets have on CIFAR.
"""

from torch import Tensor, nn

from qprune.zoo.blocks import scaled
from qprune.zoo.joints import Add


class PreActBlock(nn.Module):
    """BN-ReLU-conv3x3 twice, added to the raw input; a 1x1 convolution fits the input where the shapes differ.

    Input ``(N, in_channels, H, W)``, output ``(N, out_channels, H', W')`` with ``H' = ceil(H / stride)``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        fits = stride == 1 and in_channels == out_channels
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if fits else nn.Conv2d(in_channels, out_channels, 1, stride)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual plus the shortcut."""
        residual = self.conv1(self.act1(self.norm1(x)))
        residual = self.conv2(self.act2(self.norm2(residual)))
        return self.add(residual, self.shortcut(x))


class PreActResNet18(nn.Module):
    """PreActResNet-18 for images of about 32 x 32 pixels: four stages of two blocks.

    Input ``(N, in_channels, H, W)``, output logits ``(N, classes)``. Every convolution has a bias; nothing normalizes
    the last sum. Weights start as torch initializes each layer.

    Args:
        classes: number of logits.
        in_channels: channels of the images.
        width: share of every stage's channels, in (0, 1].
    """

    def __init__(self, classes: int = 100, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4 = (scaled(channels, width) for channels in (64, 128, 256, 512))
        self.stem = nn.Conv2d(in_channels, c1, 3, padding=1)
        self.norm = nn.BatchNorm2d(c1)
        self.act = nn.ReLU()
        self.stage1 = nn.Sequential(PreActBlock(c1, c1, stride=1), PreActBlock(c1, c1, stride=1))
        self.stage2 = nn.Sequential(PreActBlock(c1, c2, stride=2), PreActBlock(c2, c2, stride=1))
        self.stage3 = nn.Sequential(PreActBlock(c2, c3, stride=2), PreActBlock(c3, c3, stride=1))
        self.stage4 = nn.Sequential(PreActBlock(c3, c4, stride=2), PreActBlock(c4, c4, stride=1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(c4, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.act(self.norm(self.stem(x)))
        x = self.stage2(self.stage1(x))
        x = self.stage4(self.stage3(x))
        return self.linear(self.pool(x).flatten(1))
