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


def deployed_prefix(net: nn.Module) -> str:
    """What the paths of that part's modules begin with; empty where it is the whole network.

    Example:
        >>> deployed_prefix(qprune.zoo.create("pix2pix", width=0.125, width_discriminator=0.125))
        'generator.'
    """
    path = getattr(net, "deployed", "")
    return f"{path}." if isinstance(path, str) and path else ""
