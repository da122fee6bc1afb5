"""The thin ResNets of the CIFAR experiments: three stages of basic blocks with 16, 32 and 64 channels.

He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, 2016 (arXiv:1512.03385), section 4.2.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from qprune.zoo.blocks import scaled
from qprune.zoo.joints import Add


class PaddedShortcut(nn.Module):
    """Shortcut without parameters (option A): every other pixel, with channels of zeros around those that there are.

    Input ``(N, in_channels, H, W)``, output ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.behind = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Return the pixels among channels of zeros."""
        pixels = x[:, :, :: self.stride, :: self.stride]
        return F.pad(pixels, (0, 0, 0, 0, self.before, self.behind))


class BasicBlock(nn.Module):
    """Conv3x3-BN-ReLU-conv3x3-BN, added to the shortcut, then ReLU.

    Input ``(N, in_channels, H, W)``, output ``(N, out_channels, H', W')`` with ``H' = ceil(H / stride)``. Where the
    shapes differ, the shortcut ``"A"`` pads with zeros, and ``"B"`` is a 1x1 convolution and a normalization.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str = "A") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = (
                PaddedShortcut(in_channels, out_channels, stride)
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
                )
            )
        self.add = Add()
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified sum of the residual and the shortcut."""
        residual = self.act1(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        return self.act2(self.add(residual, self.shortcut(x)))


class CifarResNet(nn.Module):
    """A ResNet of ``6 * blocks + 2`` layers for images of about 32 x 32 pixels.

    Input ``(N, in_channels, H, W)``, output logits ``(N, classes)``. Convolutions start as He et al. 2015
    (arXiv:1502.01852) give it, normal over what a layer hands on.

    Args:
        blocks: blocks per stage: 3, 9 and 18 make resnet20, resnet56 and resnet110.
        classes: number of logits.
        in_channels: channels of the images.
        width: share of every stage's channels, in (0, 1].
        shortcut: ``"A"`` or ``"B"``, see `BasicBlock`.
    """

    def __init__(
        self, blocks: int, classes: int = 10, in_channels: int = 3, width: float = 1.0, shortcut: str = "A"
    ) -> None:
        super().__init__()
        c1, c2, c3 = (scaled(channels, width) for channels in (16, 32, 64))
        self.stem = nn.Conv2d(in_channels, c1, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c1)
        self.act = nn.ReLU()
        self.stage1 = _stage(blocks, c1, c1, 1, shortcut)
        self.stage2 = _stage(blocks, c1, c2, 2, shortcut)
        self.stage3 = _stage(blocks, c2, c3, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(c3, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.act(self.norm(self.stem(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.linear(self.pool(x).flatten(1))


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int, shortcut: str) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    others = (BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)
