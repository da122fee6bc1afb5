"""CycleGAN: two generators that undo each other, and a discriminator for each of the two kinds of images.

Zhu, Park, Isola, Efros, *Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks*, 2017
(arXiv:1703.10593), figure 3.
"""

from torch import Tensor, nn

from qprune.zoo.patchgan import PatchGAN
from qprune.zoo.resnet_generator import ResNetGenerator


class CycleGAN(nn.Module):
    """Both generators and discriminators for images of kinds a and b; ``generator_ab`` is the deployed part.

    Input ``a`` of shape ``(N, in_channels, H, W)``, values about [-1, 1], with H and W multiples of 4 (``stride``).
    Output in eval mode: ``fake_b`` of shape ``(N, out_channels, H, W)``. In training mode: ``(fake_b, rec_a)``, the
    cycle through both generators; ``rec_a`` has the shape of ``a``. The discriminators take part in the losses alone.

    Args:
        in_channels: channels of images of kind a.
        out_channels: channels of images of kind b.
        blocks: number of residual blocks of each generator, 6 or 9.
        width: share of the channels of ``generator_ab``, in (0, 1].
        width_ba: the same of ``generator_ba``.
        width_discriminators: the same of both discriminators, whose first layer has 64 channels.

    Example:
        >>> net = CycleGAN(width=0.125, width_ba=0.125, width_discriminators=0.125)
        >>> fake_b, rec_a = net(torch.zeros(2, 3, 8, 12))
        >>> net.eval()(torch.zeros(2, 3, 8, 12)).shape
        torch.Size([2, 3, 8, 12])
    """

    stride = ResNetGenerator.stride
    deployed = "generator_ab"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        blocks: int = 6,
        width: float = 1.0,
        width_ba: float = 1.0,
        width_discriminators: float = 1.0,
    ) -> None:
        super().__init__()
        self.generator_ab = ResNetGenerator(in_channels, out_channels, blocks, width)
        self.generator_ba = ResNetGenerator(out_channels, in_channels, blocks, width_ba)
        self.discriminator_a = PatchGAN(in_channels, "instance", width_discriminators)
        self.discriminator_b = PatchGAN(out_channels, "instance", width_discriminators)

    def forward(self, a: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return ``fake_b``; in training mode ``(fake_b, rec_a)``."""
        fake_b = self.generator_ab(a)
        return (fake_b, self.generator_ba(fake_b)) if self.training else fake_b
