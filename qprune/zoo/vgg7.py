"""VGG-7 for small images, on which papers about low-precision training measure.

Li, Liu, *Ternary Weight Networks*, 2016 (arXiv:1605.04711), section 3: 2x128, 2x256 and 2x512 channels, each pair ended
by a pooling, then 1024 hidden units; after the VGG of Simonyan and Zisserman, 2015 (arXiv:1409.1556).
"""

from torch import Tensor, nn

from qprune.zoo.blocks import scaled


class VGG7(nn.Module):
    """Six 3x3 convolutions and two linear layers; a normalization and a ReLU follow all but the last.

    Input ``(N, in_channels, H, W)`` of about 32 x 32 pixels, which are pooled to 4 x 4 before the linear layers. Output
    logits ``(N, classes)``.

    Args:
        classes: number of logits.
        in_channels: channels of the images.
        width: share of all channels and hidden units, in (0, 1].
    """

    def __init__(self, classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, hidden = (scaled(channels, width) for channels in (128, 256, 512, 1024))
        self.stage1 = _stage(in_channels, c1)
        self.stage2 = _stage(c1, c2)
        self.stage3 = _stage(c2, c3)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.hidden = nn.Linear(c3 * 4 * 4, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.act = nn.ReLU()
        self.linear = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.pool(self.stage3(self.stage2(self.stage1(x))))
        return self.linear(self.act(self.norm(self.hidden(x.flatten(1)))))


def _stage(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
