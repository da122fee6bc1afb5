"""MobileNetV2 for small images: thin layers between blocks, wide depthwise convolutions inside them.

Sandler, Howard, Zhu, Zhmoginov, Chen, *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, 2018
(arXiv:1801.04381), table 2, with fewer strides so that a 32 x 32 image ends as 5 x 5.
"""

from collections import OrderedDict

from torch import Tensor, nn

from qprune.zoo.blocks import conv_norm_act, scaled
from qprune.zoo.joints import Add


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1; the input is added where the shapes agree.

    Input ``(N, in_channels, H, W)``, output ``(N, out_channels, H', W')`` with ``H' = ceil(H / stride)``. The inside is
    ``expansion`` times wider than the input. The projection is called ``post_residual``: its output is what meets the
    residual sum, and no ReLU6 follows it.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inside = expansion * in_channels
        self.expand = conv_norm_act(nn.Conv2d(in_channels, inside, 1), nn.ReLU6())
        self.depthwise = conv_norm_act(nn.Conv2d(inside, inside, 3, stride, padding=1, groups=inside), nn.ReLU6())
        self.post_residual = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(inside, out_channels, 1), norm=nn.BatchNorm2d(out_channels))
        )
        self.add = Add() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the projection, plus the input where the shapes agree."""
        projected = self.post_residual(self.depthwise(self.expand(x)))
        return projected if self.add is None else self.add(projected, x)


class MobileNetV2(nn.Module):
    """MobileNetV2 for images of about 32 x 32 pixels: 17 inverted residuals in seven stages.

    Input ``(N, in_channels, H, W)``, output logits ``(N, classes)``. Every convolution has a bias; the stem is a 1x1
    convolution with padding 1 (32 pixels become 34); the classifier is a 1x1 convolution. Weights start as torch
    initializes each layer.

    Args:
        classes: number of logits.
        in_channels: channels of the images.
        width: share of every stage's channels, in (0, 1], the 1280 at the end included.
    """

    def __init__(self, classes: int = 100, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        stem, c1, c2, c3, c4, c5, c6, c7, last = (
            scaled(channels, width) for channels in (32, 16, 24, 32, 64, 96, 160, 320, 1280)
        )
        self.stem = conv_norm_act(nn.Conv2d(in_channels, stem, 1, padding=1), nn.ReLU6())
        self.stage1 = _stage(1, stem, c1, expansion=1, stride=1)
        self.stage2 = _stage(2, c1, c2, expansion=6, stride=2)
        self.stage3 = _stage(3, c2, c3, expansion=6, stride=2)
        self.stage4 = _stage(4, c3, c4, expansion=6, stride=2)
        self.stage5 = _stage(3, c4, c5, expansion=6, stride=1)
        self.stage6 = _stage(3, c5, c6, expansion=6, stride=1)
        self.stage7 = _stage(1, c6, c7, expansion=6, stride=1)
        self.head = conv_norm_act(nn.Conv2d(c7, last, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Conv2d(last, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.stage1(self.stem(x))
        x = self.stage4(self.stage3(self.stage2(x)))
        x = self.stage7(self.stage6(self.stage5(x)))
        return self.classifier(self.pool(self.head(x))).flatten(1)


def _stage(blocks: int, in_channels: int, out_channels: int, expansion: int, stride: int) -> nn.Sequential:
    """Inverted residuals in a row, the first with ``stride``, the others with stride 1."""
    first = InvertedResidual(in_channels, out_channels, expansion, stride)
    return nn.Sequential(
        first, *(InvertedResidual(out_channels, out_channels, expansion, 1) for _ in range(blocks - 1))
    )
