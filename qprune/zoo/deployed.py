"""Finds the part of a network that is used after training."""

from torch import nn


def deployed(net: nn.Module) -> nn.Module:
    """Return the part that is used after training: the submodule that ``net.deployed`` names, else ``net`` itself.

    Discriminators, and the generator that leads back, only teach.

    Example:
        >>> type(deployed(qprune.zoo.create("pix2pix", width=0.125, width_discriminator=0.125))).__name__
        'UNet256'
    """
    path = getattr(net, "deployed", "")
    return net.get_submodule(path) if isinstance(path, str) else net
