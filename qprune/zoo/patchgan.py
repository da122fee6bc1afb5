"""PatchGAN: a discriminator that judges overlapping patches of 70 x 70 pixels, each on its own.

Isola, Zhu, Zhou, Efros, *Image-to-Image Translation with Conditional Adversarial Networks*, 2017 (arXiv:1611.07004),
appendix 6.1.2.
"""

from collections import OrderedDict

from torch import Tensor, nn

from qprune.zoo.blocks import conv_norm_act, scaled, start_small


class PatchGAN(nn.Module):
    """Five 4x4 convolutions, leaky ReLU 0.2 between them and a normalization in each of the middle three.

    Input ``(N, in_channels, H, W)`` with H and W of at least 24, output logits ``(N, 1, H // 8 - 2, W // 8 - 2)``,
    high where a patch looks real. Weights start small (`start_small`).

    Args:
        in_channels: channels of what is judged: 3 for images, 6 for an image with the input it was made from.
        norm: ``"instance"`` (without parameters, behind convolutions with a bias) or ``"batch"``.
        width: share of every layer's channels, in (0, 1], the single logit excepted.
    """

    def __init__(self, in_channels: int = 3, norm: str = "instance", width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4 = (scaled(channels, width) for channels in (64, 128, 256, 512))
        first = nn.Conv2d(in_channels, c1, 4, stride=2, padding=1)
        self.layer1 = nn.Sequential(OrderedDict(conv=first, act=nn.LeakyReLU(0.2)))
        self.layer2 = _layer(c1, c2, norm, stride=2)
        self.layer3 = _layer(c2, c3, norm, stride=2)
        self.layer4 = _layer(c3, c4, norm, stride=1)
        self.to_logit = nn.Conv2d(c4, 1, 4, padding=1)
        self.apply(start_small)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of every patch."""
        x = self.layer2(self.layer1(x))
        x = self.layer4(self.layer3(x))
        return self.to_logit(x)


def _layer(in_channels: int, out_channels: int, norm: str, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 4, stride, padding=1, bias=norm == "instance")
    kind = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}[norm]
    return conv_norm_act(conv, nn.LeakyReLU(0.2), kind)
