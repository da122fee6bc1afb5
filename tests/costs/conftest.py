import pytest
import torch
from torch import nn

from qprune.layers import HOSTS, Compressed, sites


def compressible(net: nn.Module) -> nn.Module:
    """Every layer that has a host becomes one, with empty slots."""
    for module in net.modules():
        if type(module) in HOSTS:
            module.__class__ = HOSTS[type(module)]
            module.open_slots()
    return net


def drop(host: Compressed, side: str, *channels: int, count: int | None = None) -> None:
    """Add a mask at ``side`` that drops these channels."""
    host.add_mask(side, channels=count).keep[list(channels)] = False


def activate(net: nn.Module) -> None:
    for site in sites(net):
        if site.quant is not None:
            site.quant.active.fill_(True)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(name="compressible")
def _compressible():
    return compressible


@pytest.fixture(name="drop")
def _drop():
    return drop


@pytest.fixture(name="activate")
def _activate():
    return activate
