"""The sites of a network, where compressors can be; each is named ``<module path>.<side>``."""

from collections.abc import Iterator

from attrs import frozen
from torch import nn

from qprune.layers.mask import ChannelMask
from qprune.layers.quantizer import FakeQuant
from qprune.layers.slots import Compressed


@frozen(eq=False)
class Site:
    """One place where compressors act.

    Attributes:
        path: module path of the host.
        side: ``"input"``, ``"weight"`` or ``"output"``.
        host: the layer.
        mask: its `ChannelMask`, or None.
        quant: its `FakeQuant`, or None.
    """

    path: str
    side: str
    host: Compressed
    mask: ChannelMask | None
    quant: FakeQuant | None

    @property
    def name(self) -> str:
        """``<module path>.<side>``; just the side if the network is the host itself."""
        return f"{self.path}.{self.side}".lstrip(".")


def sites(net: nn.Module) -> Iterator[Site]:
    """Every site of ``net`` that has a mask or a quantizer, in registration order.

    Example:
        >>> [site.name for site in sites(PrunedConv2d(2, 3, 1))]
        ['input']
    """
    for path, host in net.named_modules():
        for side in host.sides if isinstance(host, Compressed) else ():
            mask, quant = host.slot(side, "mask"), host.slot(side, "quant")
            if mask is not None or quant is not None:
                yield Site(path, side, host, mask, quant)
