"""Where neighbours keep other channels, fewer numbers move: gathered or carried along, put back before or behind."""

import pytest
import torch
from masked_nets import Net, aligned, assert_same, conv, lively, masked, outputs, shrunk
from torch import nn

from qprune.layers import Align, Aligned
from qprune.shrinking import cut_dead, shrink
from qprune.zoo import Add, Concat

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


# Gathers before a concatenation


def dense_block(*kept):
    """Ten channels that one convolution reads whole; of these and two more others read so many, each its own."""
    readers = [masked(conv(12, 4), keep, "input") for keep in kept]
    layers = {"first": conv(3, 10), "whole": conv(10, 2), "join": Concat(), "readers": nn.ModuleList(readers)}
    return lively(Net(run_dense_block, **layers)).eval()


def run_dense_block(net, x):
    first = net.first(x)
    joined = net.join(first, net.whole(first))
    return [reader(joined) for reader in net.readers]


def test_a_concatenation_carries_what_few_do_not_want_where_its_readers_gather_anyway():
    small = shrunk(dense_block([0, 1, 2, 3, 10], [2, 4, 5, 6, 7, 11]), X)
    assert aligned(small) == ["readers.0", "readers.1"]
    assert small.readers[0].in_channels == 5
    assert small.readers[1].in_channels == 6


def test_what_a_concatenation_has_many_too_many_of_is_gathered_before_it():
    small = shrunk(dense_block([1, 3, 10], [3, 11]), X)
    assert aligned(small) == ["join", "readers.0", "readers.1"]
    assert small.join.arguments[0].index == (1, 3)


def test_a_reader_of_all_that_leaves_a_concatenation_is_spared_the_gather():
    small = shrunk(dense_block([0, 1, 2, 3, 4, 5, 6, 7, 10, 11]), X)
    assert aligned(small) == ["join"]


def test_carried_channels_reach_the_next_concatenation():
    blocks = [masked(conv(14, 4), keep, "input") for keep in ([0, 1, 2, 3, 4, 10, 12], [5, 6, 7, 8, 11, 13])]
    layers = {"first": conv(3, 10), "one": conv(10, 2), "two": masked(conv(12, 2), [3, 8], "input"),
              "joins": nn.ModuleList([Concat(), Concat()]), "readers": nn.ModuleList(blocks)}  # fmt: skip

    def run(net, x):
        first = net.first(x)
        joined = net.joins[0](first, net.one(first))
        joined = net.joins[1](joined, net.two(joined))
        return [reader(joined) for reader in net.readers]

    small = shrunk(lively(Net(run, **layers)), X)
    assert aligned(small) == ["two", "readers.0", "readers.1"]
    assert [layer.in_channels for layer in (small.two, *small.readers)] == [2, 7, 6]


def test_what_was_carried_goes_when_it_is_cut_again():
    net = shrunk(dense_block([0, 1, 2, 3, 10], [2, 4, 5, 6, 7, 11]), X)
    with torch.no_grad():
        for reader in net.readers:
            reader.weight[:, 1:-1] = 0
    before = outputs(net, X)
    cut_dead(net, X)
    assert [reader.in_channels for reader in net.readers] == [2, 2]
    assert net.join.arguments[0].index == (0, 2)
    for one, other in zip(before, outputs(net, X), strict=True):
        assert_same(one, other)


# Constants on their way to a sum


def resized(make, *norm):
    """Four channels of ten, made larger or smaller, and added to ten."""
    thin = nn.Sequential(masked(conv(3, 10), [1, 2, 5, 9]), *norm)
    layers = {"thin": thin, "small": make(), "full": nn.Sequential(conv(3, 10), make()), "add": Add()}
    return lively(Net(lambda net, x: net.add(net.small(net.thin(x)), net.full(x)), **layers)).eval()


def scattered(net):
    """Which layers put channels among constants, and at what shape."""
    found = {}
    for path, layer in net.named_modules():
        if isinstance(layer, Align) and -1 in layer.index:
            layer.register_forward_hook(lambda _, x, y, path=path: found.update({path.split(".")[0]: tuple(y.shape)}))
    outputs(net, X)
    return found


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_constants_are_put_back_before_a_tensor_is_made_larger(mode):
    small = shrunk(resized(lambda: nn.Upsample(scale_factor=2, mode=mode)), X)
    assert scattered(small) == {"small": (2, 10, 6, 8)}
    assert small.thin[0].out_channels == 4


def test_constants_other_than_zero_are_made_larger_too():
    small = shrunk(resized(lambda: nn.Upsample(scale_factor=2), nn.BatchNorm2d(10)), X, fold=True)
    assert scattered(small) == {"small": (2, 10, 6, 8)}
    assert any(small.small.arguments[0].fill)


def test_constants_are_put_back_behind_what_makes_a_tensor_smaller():
    small = shrunk(resized(lambda: nn.MaxPool2d(2)), X)
    assert scattered(small) == {"add": (2, 10, 3, 4)}


def test_a_layer_with_a_mask_carries_nothing_that_the_mask_drops():
    layers = {"first": conv(3, 10), "act": masked(nn.ReLU(), [0, 1, 4, 5, 6, 8], channels=10), "whole": conv(10, 10)}
    adds = nn.ModuleList([Add(), Add(), Add()])

    def run(net, x):
        first = net.first(x)
        act, whole = net.act(first), net.whole(first)
        return [add(act, whole) for add in net.adds]

    small = shrunk(lively(Net(run, adds=adds, **layers)), X)
    assert aligned(small) == ["act"]
    assert small.act.arguments[0].index == (0, 1, 4, 5, 6, 8)
