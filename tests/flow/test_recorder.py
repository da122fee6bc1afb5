"""What reaches a tensor by another way than calls of layers: a parameter that a function reads, a hook."""

from copy import deepcopy

import pytest
import torch
from masked_nets import KEEP, SIX, Net, conv, held, lively, masked, shrunk
from torch import nn
from torch.nn import functional as F

from qprune.shrinking import shrink_with_facts
from qprune.zoo import Add

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


# parameters that are read by others


def tied_linear(net, x):
    y = net.encode(x.flatten(1))
    return F.linear(net.relu(y), net.encode.weight.t())


def test_weight_that_a_function_reads_holds_its_layer():
    net = Net(tied_linear, encode=masked(nn.Linear(12, SIX), KEEP), relu=nn.ReLU())
    x = torch.randn(5, 3, 4)
    small = shrunk(net, x)
    assert small.encode.weight.shape == (SIX, 12)
    assert "encode: t reads a parameter or buffer of it, too" in held(net, x)


@pytest.mark.parametrize("detach", [False, True])
def test_weight_that_a_convolution_elsewhere_reads_holds_its_layer(detach):
    def run(net, x):
        weight = net.inner.weight.detach() if detach else net.inner.weight
        return net.last(F.conv2d(net.inner(net.first(x)), weight) + 1)

    net = Net(
        run, first=conv(3, SIX), inner=masked(conv(SIX, SIX), KEEP, "input"), last=masked(conv(SIX, 4), KEEP, "input")
    )
    small = shrunk(net, X)
    assert small.inner.weight.shape == (SIX, SIX, 1, 1)
    assert [sentence for sentence in held(net, X) if sentence.startswith("inner: ")]


def test_bias_that_is_added_elsewhere_and_statistics_that_are_read_hold_their_layers():
    def run(net, x):
        y = net.norm(net.before(x))
        return net.after(y - net.norm.running_mean.view(-1, 1, 1) + net.before.bias.view(-1, 1, 1))

    net = lively(Net(run, before=masked(conv(3, SIX), KEEP), norm=nn.BatchNorm2d(SIX), after=conv(SIX, 4)))
    small = shrunk(net, X, fold=True)
    assert (len(small.before.bias), small.norm.num_features) == (SIX, SIX)


def test_dtype_and_shape_of_a_parameter_may_be_read():
    def run(net, x):
        return net.after(net.before(x.to(net.before.weight.dtype)).view(-1, *net.before.weight.shape[:1], 8, 10).relu())

    net = Net(run, before=masked(conv(3, SIX), KEEP), after=conv(SIX, 4))
    assert not [sentence for sentence in held(net, X) if "parameter" in sentence]


# hooks on modules of several layers


def shift(*facts):
    """Whatever kind of hook it is: what it is given last, with other numbers in each channel."""
    tensor = facts[-1][0] if isinstance(facts[-1], tuple) else facts[-1]
    return tensor + torch.arange(tensor.shape[1], dtype=tensor.dtype).view(-1, 1, 1)


def blocks(kept=KEEP):
    block = nn.Sequential(conv(SIX, SIX), nn.Sigmoid(), masked(conv(SIX, SIX), kept, "input"), nn.BatchNorm2d(SIX))
    return lively(
        nn.Sequential(masked(conv(3, SIX), kept), nn.Sigmoid(), block, masked(conv(SIX, 4), kept, "input"))
    ).eval()


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("fold", [False, True])
def test_hook_of_a_block_sees_and_may_change_every_channel_at_its_boundary(kind, fold):
    net = blocks()
    getattr(net[2], kind)(shift)
    small = shrunk(net, X, fold=fold)
    assert held(net, X) == ("2: it has a hook, which may read or change any channel",)
    assert (small[2][0].out_channels, small[2][2].in_channels) == (4, 4)  # inside, it goes on


def test_hook_of_a_block_reads_what_it_read_before():
    seen = []
    net = blocks()
    net[2].register_forward_hook(lambda module, arguments, result: seen.append((arguments[0].clone(), result.clone())))
    small = shrunk(net, X)
    seen.clear()
    with torch.no_grad():
        net(X), small(X)
    for one, other in zip(*seen, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_hook_of_the_whole_network():
    for kind in ("register_forward_hook", "register_forward_pre_hook"):
        net = blocks()
        getattr(net, kind)(shift)
        assert shrunk(net, X)[0].out_channels == 4


def test_hook_of_a_block_that_ends_in_a_function():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.add = conv(SIX, SIX), Add()

        def forward(self, x, *, gain):
            return torch.relu(self.inner(x) * gain)

    net = Net(
        lambda net, x: net.after(net.block(net.before(x), gain=net.gain(x))),
        before=masked(conv(3, SIX), KEEP), gain=conv(3, SIX), block=Block(), after=masked(conv(SIX, 4), KEEP, "input"),
    )  # fmt: skip
    assert shrunk(deepcopy(net), X).gain.out_channels == 4
    net.block.register_forward_hook(
        lambda module, args, kwargs, result: shift(result * kwargs["gain"]), with_kwargs=True
    )
    assert shrunk(net, X).gain.out_channels == SIX


def test_hook_of_a_block_holds_nothing_where_nothing_would_go():
    net = nn.Sequential(conv(3, SIX), nn.Sequential(nn.ReLU(), conv(SIX, 4)))
    net[1].register_forward_hook(lambda module, arguments, result: None)
    assert held(net, X) == ()


def test_hook_of_a_mask_is_a_hook_of_its_layer():
    net = nn.Sequential(conv(3, SIX), masked(conv(SIX, 4), KEEP, "input"))
    net[1].input_mask.register_forward_hook(lambda module, arguments, result: shift(result))
    shrunk(net, X)
    assert held(net, X) == ("1: it has a hook, which may read or change any channel",)


def test_normalization_is_not_folded_where_a_hook_sees_what_is_before_it():
    net = lively(nn.Sequential(nn.Sequential(conv(3, SIX)), nn.BatchNorm2d(SIX), nn.Sequential(conv(SIX, 4)))).eval()
    net[0].register_forward_hook(shift)
    net[2].register_forward_pre_hook(shift)
    found = shrink_with_facts(net, X, fold=True)
    assert found.folds == ()
    assert found.unfolded == ("1: a hook of 0 sees what is between it and 0.0; a hook of 2 sees what comes out of it",)
