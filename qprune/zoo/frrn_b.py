"""FRRN-B: a residual stream at full resolution beside a pooling stream that sees more and more of the scene.

Pohlen, Hermans, Mathias, Leibe, *Full-Resolution Residual Networks for Semantic Segmentation in Street Scenes*, 2017
(arXiv:1611.08323), model B of table 1, with the channel counts of the published pruning experiments.
"""

from torch import Tensor, nn

from qprune.zoo.blocks import conv_norm_act, scaled
from qprune.zoo.joints import Add, Concat

RESIDUAL = 32  # channels of the residual stream, at every width


class ResidualUnit(nn.Module):
    """Conv3x3-BN-ReLU-conv3x3-BN, added to the input.

    Input and output ``(N, C, H, W)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus the residual."""
        residual = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.add(x, residual)


class FullResolutionUnit(nn.Module):
    """Reads both streams at the pooling stream's size, continues the pooling stream and adds to the residual stream.

    Input: the pooling stream ``(N, in_channels, H, W)`` and the residual stream ``(N, 32, scale * H, scale * W)``.
    Output: the pooling stream ``(N, out_channels, H, W)`` and the residual stream in its shape.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(scale)
        self.concat = Concat()
        self.conv1 = nn.Conv2d(in_channels + RESIDUAL, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.residual = nn.Conv2d(out_channels, RESIDUAL, 1)
        self.unpool = nn.Upsample(scale_factor=scale, mode="nearest")
        self.add = Add()

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooling stream and the residual stream."""
        y = self.concat(y, self.pool(z))
        y = self.act1(self.norm1(self.conv1(y)))
        y = self.act2(self.norm2(self.conv2(y)))
        return y, self.add(z, self.unpool(self.residual(y)))


class UnitGroup(nn.Module):
    """Halves or doubles the pooling stream's sides (``resize``), then runs full-resolution units of one size.

    Input and output are those of `FullResolutionUnit`, but for the pooling stream's size. If ``chained``, each unit
    reads the pooling stream that the unit before it made; else all of them read the one that enters the group.
    """

    def __init__(
        self, resize: nn.Module, units: int, in_channels: int, out_channels: int, *, scale: int, chained: bool
    ) -> None:
        super().__init__()
        later = out_channels if chained else in_channels
        self.chained = chained
        self.resize = resize
        self.units = nn.ModuleList(
            FullResolutionUnit(channels, out_channels, scale) for channels in (in_channels, *[later] * (units - 1))
        )

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooling stream and the residual stream."""
        y = entered = self.resize(y)
        for unit in self.units:
            y, z = unit(y if self.chained else entered, z)
        return y, z


class FRRNB(nn.Module):
    """FRRN-B for segmentation: five groups of units down to 1/32 of the size and four back up.

    Input ``(N, in_channels, H, W)`` with H and W multiples of 32 (``stride``), output logits ``(N, classes, H, W)``.
    Weights start as torch initializes each layer.

    Args:
        classes: number of logits of each pixel.
        in_channels: channels of the images.
        width: share of the channels, in (0, 1]; the residual stream has 32 at every width.
        chained: each unit continues the pooling stream of the unit before it, as in the paper. False is the wiring of
            the published pruning experiments, where all units of a group read what enters the group.
    """

    stride = 32

    def __init__(self, classes: int = 19, in_channels: int = 3, width: float = 1.0, *, chained: bool = True) -> None:
        super().__init__()
        c1, c2, c3, c4 = (scaled(channels, width) for channels in (48, 96, 192, 384))
        self.stem = conv_norm_act(nn.Conv2d(in_channels, c1, 5, padding=2))
        self.before = nn.Sequential(*(ResidualUnit(c1) for _ in range(3)))
        # registered before the encoder although it runs last: where the published order = "registration" prunes it
        self.after = nn.Sequential(*(ResidualUnit(c1) for _ in range(3)))
        self.split = nn.Conv2d(c1, RESIDUAL, 1, bias=False)
        self.encoder1 = UnitGroup(nn.MaxPool2d(2), 3, c1, c2, scale=2, chained=chained)
        self.encoder2 = UnitGroup(nn.MaxPool2d(2), 4, c2, c3, scale=4, chained=chained)
        self.encoder3 = UnitGroup(nn.MaxPool2d(2), 2, c3, c4, scale=8, chained=chained)
        self.encoder4 = UnitGroup(nn.MaxPool2d(2), 2, c4, c4, scale=16, chained=chained)
        self.encoder5 = UnitGroup(nn.MaxPool2d(2), 2, c4, c4, scale=32, chained=chained)
        self.decoder4 = UnitGroup(_unpool(), 2, c4, c3, scale=16, chained=chained)
        self.decoder3 = UnitGroup(_unpool(), 2, c3, c3, scale=8, chained=chained)
        self.decoder2 = UnitGroup(_unpool(), 2, c3, c3, scale=4, chained=chained)
        self.decoder1 = UnitGroup(_unpool(), 2, c3, c1, scale=2, chained=chained)
        self.unpool = _unpool()
        self.concat = Concat()
        self.merge = nn.Conv2d(c1 + RESIDUAL, c1, 1, bias=False)
        self.classifier = nn.Conv2d(c1, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every pixel."""
        y = self.before(self.stem(x))
        z = self.split(y)
        for encoder in (self.encoder1, self.encoder2, self.encoder3, self.encoder4, self.encoder5):
            y, z = encoder(y, z)
        for decoder in (self.decoder4, self.decoder3, self.decoder2, self.decoder1):
            y, z = decoder(y, z)
        x = self.merge(self.concat(self.unpool(y), z))
        return self.classifier(self.after(x))


def _unpool() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
