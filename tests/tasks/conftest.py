import pytest
import torch
from torch import nn


class TinyCycleGAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator_ab, self.generator_ba = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.discriminator_a, self.discriminator_b = nn.Conv2d(3, 1, 4, stride=2), nn.Conv2d(3, 1, 4, stride=2)

    def forward(self, a):
        return self.generator_ab(a)


class TinyPix2Pix(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(6, 1, 4, stride=2)

    def forward(self, a):
        return self.generator(a)


@pytest.fixture
def cyclegan_net():
    return TinyCycleGAN()


@pytest.fixture
def pix2pix_net():
    return TinyPix2Pix()


@pytest.fixture
def pair():
    return torch.rand(2, 3, 9, 11) * 2 - 1, torch.rand(2, 3, 9, 11) * 2 - 1


@pytest.fixture
def calls():
    """Count the forward passes of modules, by name."""

    def count(net, *names):
        seen = dict.fromkeys(names, 0)

        def add(name):
            seen[name] += 1

        for name in names:
            net.get_submodule(name).register_forward_hook(lambda *_, name=name: add(name))
        return seen

    return count
