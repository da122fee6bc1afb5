"""Two networks of the same module tree: they compute the same, or it is said where they begin to differ."""

import copy

import pytest
import torch
from masked_nets import SIX, Net, conv, hosted, sandwich
from torch import nn

from qprune.errors import ShrinkError
from qprune.shrinking import cut_dead, shrink
from qprune.shrinking.equality import assert_same

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def quantized(net):
    """The sandwich with active quantizers at the inputs and weights of its convolutions."""
    for layer in (hosted(net.before), hosted(net.after)):
        layer.add_quant("weight", 4, per="channel").calibrate(layer.weight.detach())
        layer.add_quant("input", 3).calibrate(torch.tensor([-3.0, 3.0]))
    return net


@pytest.mark.parametrize("prepare", [lambda net: net, quantized], ids=["floats", "quantized"])
def test_a_network_and_its_cut_copy_are_the_same(prepare):
    net = prepare(sandwich(nn.ReLU()))
    small = copy.deepcopy(net)
    cut_dead(small, X)
    assert small.before.out_channels == 4
    assert_same(net, small, X)
    assert_same(small, small, X)


@pytest.mark.parametrize("prepare", [lambda net: net, quantized], ids=["floats", "quantized"])
def test_the_first_layer_that_makes_a_difference_is_named(prepare):
    net = prepare(sandwich(nn.Sequential(nn.ReLU(), conv(SIX, SIX), nn.Sigmoid())))
    other = copy.deepcopy(net)
    other.middle[1].weight.data[2] += 0.5
    with pytest.raises(ShrinkError, match=r'^Mine does not compute .* in "middle.1" \(Conv2d\)\. ') as caught:
        assert_same(net, other, X, what="Mine")
    assert "Compute such a number once, in __init__, and keep it as an attribute" in str(caught.value)


def test_modes_and_random_numbers_are_left_as_they_are():
    net = sandwich(nn.Sequential(nn.Dropout(), nn.BatchNorm2d(SIX))).train()
    net.middle[0].eval()
    state = torch.get_rng_state()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert_same(net, net, X)
    assert [part.training for part in net.middle] == [False, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("example", [torch.zeros(2, 3, 8, 10), torch.zeros(2, 3, 8, 10, device="meta")])
def test_an_example_without_values_gets_random_ones(example):
    net = nn.Sequential(conv(3, 4, bias=False))
    other = copy.deepcopy(net)
    nn.init.zeros_(other[0].weight)
    with pytest.raises(ShrinkError, match=r'differs by 1 of its size\. It begins before or in "0" \(Conv2d\)'):
        assert_same(net, other, example)


def test_a_network_that_is_random_in_eval_is_told():
    net = Net(lambda n, x: n.a(nn.functional.dropout(x)), a=conv(3, 4))
    other = copy.deepcopy(net)
    nn.init.zeros_(other.a.weight)
    with pytest.raises(ShrinkError, match=r"it draws random numbers in eval mode, too\. Let it do so in"):
        assert_same(net, other, X)


def test_a_network_that_fails_is_told_where():
    net, other = nn.Sequential(conv(3, 4), conv(4, 5)), nn.Sequential(conv(3, 4), conv(3, 5))
    with pytest.raises(ShrinkError, match=r'fails where the network does not: in "1" \(Conv2d\)\. .*cut'):
        assert_same(net, other, X)
    with pytest.raises(ShrinkError, match=r'The network fails on the example, in "1" \(Conv2d\)\. Give an example'):
        assert_same(other, net, X)


def test_no_result_but_the_same_is_returned_from_quantized_networks():
    net = quantized(sandwich(nn.ReLU()))
    assert_same(net, shrink(net, X, fold=True), X)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is:FutureWarning")
def test_modules_of_torchscript_are_run():
    net = sandwich(torch.jit.script(nn.Sequential(nn.Sigmoid())))
    assert_same(net, net, X)
    assert shrink(net, X).after.in_channels == SIX
