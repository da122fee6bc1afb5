"""Building blocks that several networks of the zoo share."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, a share in (0, 1], rounded down but at least 1."""
    return max(1, int(width * channels))


def conv_norm_act(
    conv: nn.Conv2d | nn.ConvTranspose2d,
    act: nn.Module | None = None,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> nn.Sequential:
    """A convolution, its normalization and an activation (ReLU by default), as ``conv``, ``norm`` and ``act``."""
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(conv.out_channels), act=act or nn.ReLU()))


def start_small(module: nn.Module) -> None:
    """Draw a convolution's weights from normal(0, 0.02) and a batch normalization's scales from normal(1, 0.02).

    Biases and shifts become 0; other modules stay as they are. Made for ``net.apply(start_small)``.

    Source: Radford, Metz, Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks*, 2016 (arXiv:1511.06434), section 4; the scales are those of its reference code.
    """
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
        return
    mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
    nn.init.normal_(module.weight, mean, 0.02)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
