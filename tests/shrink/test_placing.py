"""Where constants are put back: once behind their maker, if several layers want them, else before the one that does."""

import torch
from masked_nets import assert_same, lively, masked, outputs
from torch import nn

from qprune.layers import Aligned
from qprune.shrink import shrink
from qprune.zoo import Add

X = torch.randn(2, 3, 6, 8)


class Sums(nn.Module):
    """A tensor of which half is dropped, added to so many others of which nothing is."""

    def __init__(self, sums):
        super().__init__()
        self.thin = masked(nn.Conv2d(3, 10, 3, padding=1), [0, 2, 3, 7, 8], channels=10)
        self.full = nn.ModuleList(nn.Conv2d(3, 10, 3, padding=1) for _ in range(sums))
        self.adds = nn.ModuleList(Add() for _ in range(sums))

    def forward(self, x):
        thin = self.thin(x)
        return [add(thin, full(x)) for add, full in zip(self.adds, self.full, strict=True)]


def test_one_reader_scatters_itself():
    net = lively(Sums(1))
    small = shrink(net, X)
    assert isinstance(small.adds[0], Aligned)
    assert not isinstance(small.thin, Aligned)
    for one, other in zip(outputs(net, X), outputs(small, X), strict=True):
        assert_same(one, other)


def test_what_several_readers_want_is_scattered_once():
    net = lively(Sums(3))
    small = shrink(net, X)
    assert not any(isinstance(add, Aligned) for add in small.adds)
    assert isinstance(small.thin, Aligned)
    assert small.thin.out_channels == 5
    for one, other in zip(outputs(net, X), outputs(small, X), strict=True):
        assert_same(one, other)
