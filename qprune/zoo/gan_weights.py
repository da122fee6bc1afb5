"""How generators and discriminators start."""

from torch import nn


def start_small(module: nn.Module) -> None:
    """Draw a convolution's weights from normal(0, 0.02) and a batch normalization's scales from normal(1, 0.02).

    Biases and shifts become 0; other modules stay as they are. Made for ``net.apply(start_small)``.

    Source: Radford, Metz, Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks*, 2016 (arXiv:1511.06434), section 4; the scales are those of its reference code.

    Example:
        >>> conv = nn.Conv2d(2, 3, 1)
        >>> start_small(conv)
        >>> conv.bias.tolist()
        [0.0, 0.0, 0.0]
    """
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
        return
    mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
    nn.init.normal_(module.weight, mean, 0.02)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
