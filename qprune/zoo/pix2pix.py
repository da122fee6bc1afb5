"""pix2pix: a generator, and a discriminator that sees each image together with the input it belongs to.

Isola, Zhu, Zhou, Efros, *Image-to-Image Translation with Conditional Adversarial Networks*, 2017 (arXiv:1611.07004),
figure 2.
"""

from torch import Tensor, nn

from qprune.zoo.patchgan import PatchGAN
from qprune.zoo.unet_256 import UNet256


class Pix2Pix(nn.Module):
    """Generator and discriminator; ``generator`` is the deployed part.

    Input ``a`` of shape ``(N, in_channels, H, W)``, values about [-1, 1], with H and W multiples of 256 (``stride``);
    output ``(N, out_channels, H, W)``. The discriminator takes part in the losses alone: it reads
    ``torch.cat((a, image), 1)``.

    Args:
        in_channels: channels of the inputs.
        out_channels: channels of the images made from them.
        width: share of the generator's channels, in (0, 1].
        width_discriminator: the same of the discriminator, whose first layer has 64 channels.

    Example:
        >>> Pix2Pix(width=0.125, width_discriminator=0.125)(torch.zeros(2, 3, 256, 256)).shape
        torch.Size([2, 3, 256, 256])
    """

    stride = UNet256.stride
    deployed = "generator"

    def __init__(
        self, in_channels: int = 3, out_channels: int = 3, width: float = 1.0, width_discriminator: float = 1.0
    ) -> None:
        super().__init__()
        self.generator = UNet256(in_channels, out_channels, width)
        self.discriminator = PatchGAN(in_channels + out_channels, "batch", width_discriminator)

    def forward(self, a: Tensor) -> Tensor:
        """Return the images made from ``a``."""
        return self.generator(a)
