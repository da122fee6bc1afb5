"""What counts as kept by the masks: what cutting in training would leave, were every mask frozen as it is."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_nets import KEEP, SIX, conv, masked, sandwich
from random_nets import RECIPES, random_net
from torch import nn

from qprune.costs import summarize
from qprune.costs.layer_cost import connections
from qprune.flow import trace
from qprune.shrinking import Mode, analyse, apply_cuts, kept_by_masks
from qprune.shrinking.weights import WEIGHTED

X = torch.randn(2, 3, 6, 8)
TRAINING = Mode(settled=lambda mask: True, training=True)


def calls_of(net):
    """Each layer with weights that is called once, and what is kept of it."""
    flow = trace(net, X)
    kept = zip(flow.calls, kept_by_masks(net, flow), strict=True)
    return {call.path: each for call, each in kept if isinstance(call.layer, WEIGHTED) and len(flow.of(call.path)) == 1}


@settings(max_examples=100)
@given(RECIPES, st.integers(0, 2**16))
def test_kept_is_what_cutting_in_training_leaves(recipe, seed):
    net = random_net(recipe, seed)
    small = copy.deepcopy(net)
    apply_cuts(small, analyse(small, trace(small, X), TRAINING).cuts)
    for path, kept in calls_of(net).items():
        before, after = net.get_submodule(path), small.get_submodule(path)
        theory = connections(before, kept.inputs, kept.outputs)
        if getattr(before, "groups", 1) == 1 and theory:
            assert after.weight.numel() == theory
        else:  # groups of one size, and one channel where none matters
            assert after.weight.numel() >= theory


@settings(max_examples=50)
@given(RECIPES, st.integers(0, 2**16))
def test_what_is_not_kept_may_hold_any_weights(recipe, seed):
    net = random_net(recipe, seed)
    other = copy.deepcopy(net)
    for path, kept in calls_of(net).items():
        layer = other.get_submodule(path)
        rows = layer.weight if not isinstance(layer, nn.ConvTranspose2d) else layer.weight.transpose(0, 1)
        if getattr(layer, "groups", 1) == 1:
            rows.data[~kept.outputs] = 7.0
            rows.data[:, ~kept.inputs] = -3.0
    with torch.no_grad():
        for one, two in zip(net(X), other(X), strict=True):
            assert torch.allclose(one, two, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


def test_constants_and_weights_that_happen_to_be_zero_are_kept():
    net = sandwich(nn.Sequential(nn.BatchNorm2d(SIX), nn.ReLU()))
    nn.init.zeros_(net.middle[0].bias)
    nn.init.zeros_(net.middle[0].running_mean)
    nn.init.zeros_(net.after.weight)
    before, _, after = summarize(net, X.shape[1:]).layers
    assert (before.channels_out_kept, after.channels_in_kept) == (len(KEEP), SIX)


def test_what_a_hook_sees_is_kept():
    net = nn.Sequential(conv(3, SIX), nn.Sequential(masked(conv(SIX, 4), KEEP, "input")))
    assert summarize(net, X.shape[1:]).layers[0].channels_out_kept == len(KEEP)
    net[1].register_forward_pre_hook(lambda module, arguments: None)
    assert summarize(net, X.shape[1:]).layers[0].channels_out_kept == SIX
