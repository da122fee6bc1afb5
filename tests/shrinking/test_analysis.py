"""What holds channels, what may go, and how far the analysis looks."""

from copy import deepcopy

import pytest
import torch
from masked_nets import (
    FINAL,
    KEEP,
    SIX,
    Net,
    aligned,
    analysed,
    assert_same,
    conv,
    held,
    lively,
    masked,
    masks_left,
    outputs,
    sandwich,
    shrunk,
)
from torch import nn
from torch.nn.utils import parametrizations

from qprune.flow import trace
from qprune.layers import Aligned, PrunedConv2d
from qprune.shrinking import Mode, analyse, shrink
from qprune.shrinking.unused import LeftOut
from qprune.zoo import Add

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


class Mine(nn.Module):
    """A layer that nobody knows, with functions that nobody follows."""

    def forward(self, x):
        return torch.cumsum(x, 1).flip(1)


class Plain(nn.Conv2d):
    """A subclass without a forward of its own."""


# barriers


@pytest.mark.parametrize(
    ("middle", "name"),
    [
        (Mine(), "cumsum"),
        (nn.LayerNorm([SIX, 8, 10]), "LayerNorm"),
        (nn.LocalResponseNorm(2), "LocalResponseNorm"),
        (Plain(SIX, SIX, 3), "Plain"),
        (nn.Softmax(1), "Softmax"),
        (parametrizations.weight_norm(conv(SIX, SIX)), "ParametrizedConv2d"),
    ],
)
def test_unknown_operation_is_a_barrier_with_a_name(middle, name):
    net = sandwich(nn.Identity(), run=lambda n, x: n.after(n.unknown(n.before(x))))
    net.add_module("unknown", middle)
    small = shrunk(net, X)
    assert small.before.out_channels == 4  # its zeros are put back
    assert small.after.in_channels == SIX
    (sentence, *_) = held(net, X)
    assert name in sentence
    assert "not known" in sentence


def test_nothing_is_held_where_nothing_would_go():
    net = Net(lambda n, x: n.after(n.unknown(n.before(x))), before=conv(3, SIX), unknown=Mine(), after=conv(SIX, 4))
    assert analysed(net, X).held == ()
    assert analysed(net, X).cuts == {}


class OwnHost(PrunedConv2d):
    """A host with a forward of its own."""

    def forward(self, input):
        return super().forward(input) + 1


def test_mask_that_stays_is_told():
    net = nn.Sequential(OwnHost(3, SIX, 1), conv(SIX, 4))
    net[0].input_mask.keep[1] = False
    small = shrunk(net, X)
    assert masks_left(small) == ["0.input"]
    assert held(net, X) == ("0: what OwnHost does to channels is not known",)


def test_layer_called_twice_stays_whole_and_keeps_its_mask():
    net = Net(
        lambda n, x: n.after(n.twice(n.twice(x))),
        twice=masked(conv(3, 3, 3, padding=1), (0, 2), "input"),
        after=conv(3, 4),
    )
    small = shrunk(net, X)
    assert small.twice.in_channels == 3
    assert masks_left(small) == ["twice.input"]
    assert held(net, X) == ("twice: it is called several times",)


def test_channels_dropped_by_a_layer_called_twice_are_not_read_behind_it():
    net = Net(lambda n, x: n.after(n.twice(n.twice(x))), twice=masked(conv(3, 3), (0, 2)), after=conv(3, 4))
    assert shrunk(net, X).after.in_channels == 2


def test_activation_called_twice_is_no_barrier():
    run = lambda n, x: n.c(n.relu(n.b(n.relu(n.a(x)))))  # noqa: E731
    net = Net(
        run, a=masked(conv(3, 5), (1, 2, 4)), b=masked(conv(5, 7), (0, 6)), c=conv(7, 4), relu=nn.ReLU(inplace=True)
    )
    small = shrunk(net, X)
    assert (small.a.out_channels, small.b.in_channels, small.b.out_channels, small.c.in_channels) == (3, 3, 2, 2)
    assert not aligned(small)
    assert not held(net, X)


def test_module_under_two_names_is_called_twice():
    block = masked(conv(3, 3, 3, padding=1), (0, 1))
    net = nn.Sequential(nn.ModuleList([block])[0], nn.ReLU(), block, conv(3, 4))
    small = shrunk(net, X)
    assert small[0] is small[2]
    assert small[3].in_channels == 2


def test_shared_parameter_holds_both_layers():
    net = nn.Sequential(masked(conv(3, SIX), KEEP), conv(SIX, SIX), conv(SIX, SIX), masked(conv(SIX, 4), KEEP, "input"))
    net[2].weight = net[1].weight
    small = shrunk(net, X)
    assert small[2].weight is small[1].weight
    assert small[1].weight.shape == (SIX, SIX, 1, 1)
    assert held(net, X) == ("1: it shares a parameter with 2", "2: it shares a parameter with 1")
    assert (small[0].out_channels, small[3].in_channels) == (4, 4)


def test_hook_sees_and_may_change_what_it_did_before():
    net = sandwich(nn.ReLU())
    net.middle.register_forward_hook(lambda layer, arguments, result: result + torch.arange(6.0).view(6, 1, 1))
    small = shrunk(net, X)
    assert small.before.out_channels == 4  # its zeros are put back before the hook sees them
    assert small.after.in_channels == SIX
    assert held(net, X) == ("middle: it has a hook, which may read or change any channel",)


@pytest.mark.parametrize(
    "operation", [lambda n, x: x + n.shift, lambda n, x: x - n.shift, lambda n, x: n.add(x, n.shift)]
)
def test_parameter_of_the_users_own_gives_back_what_was_dropped(operation):
    net = sandwich(nn.Identity(), run=lambda n, x: n.after(operation(n, n.before(x))))
    net.shift = nn.Parameter(torch.randn(1, SIX, 8, 10))
    net.add_module("add", Add())
    assert shrunk(net, X).after.in_channels == SIX
    assert len(held(net, X)) == 1


@pytest.mark.parametrize("operation", [lambda n, x: x * n.scale, lambda n, x: n.scale.mul(x)])
def test_a_number_for_each_channel_keeps_zeros_and_stays_whole(operation):
    net = sandwich(nn.Identity(), run=lambda n, x: n.after(operation(n, n.before(x))))
    net.scale = nn.Parameter(torch.randn(SIX, 1, 1))
    small = shrunk(net, X)
    assert (small.before.out_channels, small.after.in_channels, len(small.scale)) == (4, 4, SIX)
    assert held(net, X) == ("mul: a parameter or a buffer has a number for each channel",)


@pytest.mark.parametrize("operation", [lambda n, x: x - n.mean, lambda n, x: (x - n.mean) / n.deviation])
def test_what_nobody_reads_behind_a_buffer_is_not_made_before_it(operation):
    net = sandwich(nn.Identity(), masks="consumer", run=lambda n, x: n.after(operation(n, n.before(x))))
    net.register_buffer("mean", torch.randn(1, SIX, 1, 1))
    net.register_buffer("deviation", torch.rand(1, SIX, 1, 1) + 1)
    small = shrunk(net, X)
    assert (small.before.out_channels, small.after.in_channels) == (4, 4)


@pytest.mark.parametrize("operation", [lambda n, x: x * n.gain, lambda n, x: n.gain * x])
def test_gain_of_one_number_keeps_zeros(operation):
    net = sandwich(nn.Identity(), run=lambda n, x: n.after(operation(n, n.before(x))))
    net.gain = nn.Parameter(torch.tensor(0.7))
    assert shrunk(net, X).after.in_channels == 4


def test_sum_that_repeats_a_single_channel_is_no_error():
    net = sandwich(nn.Identity(), run=lambda n, x: n.after(n.add(n.before(x), n.one(x))))
    net.add_module("add", Add())
    net.add_module("one", conv(3, 1))
    assert shrunk(net, X).after.in_channels == SIX


def test_pooling_that_returns_its_indices_is_a_barrier():
    def run(net, x):
        y, indices = net.pool(net.before(x))
        return net.after(net.unpool(y, indices))

    net = Net(
        run,
        before=masked(conv(3, SIX), KEEP),
        pool=nn.MaxPool2d(2, return_indices=True),
        unpool=nn.MaxUnpool2d(2),
        after=conv(SIX, 4),
    )
    assert shrunk(net, X).after.in_channels == SIX


def test_layer_called_by_keyword_is_a_barrier():
    net = sandwich(nn.ReLU(), run=lambda n, x: n.after(n.middle(input=n.before(x))))
    assert shrunk(net, X).before.out_channels == 4


def test_value_written_into_a_slice_is_no_error():
    def run(net, x):
        y = torch.zeros(2, SIX, 8, 10)
        y[:, :3] = net.before(x)
        return net.after(y)

    net = Net(run, before=masked(conv(3, 3), (0, 2)), after=conv(SIX, 4))
    assert shrunk(net, X).after.in_channels == SIX


def test_images_without_a_batch_are_no_error():
    net = sandwich(nn.ReLU())
    small = shrunk(net, X[0])
    assert small.before.out_channels == SIX
    assert masks_left(small) == ["before.output"]
    assert any(sentence.startswith("before: ") for sentence in held(net, X[0]))


def test_tensor_that_a_layer_gives_back_has_two_names():
    run = lambda n, x: n.a(y := n.before(x)) + n.b(n.same(y))  # noqa: E731
    layers = {
        "before": conv(3, SIX),
        "a": masked(conv(SIX, 4), (0, 1), "input"),
        "b": masked(conv(SIX, 4), (1, 4), "input"),
    }
    for same in (nn.Identity(), nn.Dropout()):
        small = shrunk(Net(run, same=same, **deepcopy(layers)), X)
        assert (small.before.out_channels, small.a.in_channels, small.b.in_channels) == (3, 2, 2)


@pytest.mark.parametrize("relu", [nn.ReLU(inplace=True), masked(nn.ReLU(inplace=True), (1, 4), channels=SIX)])
def test_tensor_that_is_overwritten_and_read_again_is_a_barrier(relu):
    run = lambda n, x: n.a(n.relu(y := n.before(x))) + n.b(y)  # noqa: E731
    net = Net(
        run,
        before=conv(3, SIX),
        relu=deepcopy(relu),
        a=masked(conv(SIX, 4), (1, 4), "input"),
        b=masked(conv(SIX, 4), (0, 4), "input"),
    )
    small = shrunk(net, X)
    assert (small.a.in_channels, small.b.in_channels) == (2, 2)


def test_overwritten_tensor_is_named():
    run = lambda n, x: n.a(n.relu(y := n.before(x))) + n.b(y)  # noqa: E731
    net = Net(run, before=masked(conv(3, SIX), KEEP), relu=nn.ReLU(inplace=True), a=conv(SIX, 4), b=conv(SIX, 4))
    shrunk(net, X)
    assert held(net, X) == ("relu: it overwrites what is read again behind it, or hands it on",)


# inputs and outputs


def test_outputs_of_the_network_keep_their_channels():
    small = shrunk(nn.Sequential(conv(3, 5), masked(conv(5, SIX), KEEP)), X)
    assert small[1].out_channels == 4
    assert outputs(small, X).shape[1] == SIX
    assert aligned(small) == ["1"]


def test_dead_channels_of_the_input_are_not_read():
    small = shrunk(nn.Sequential(masked(conv(3, 5), (0, 2), "input")), X)
    assert small[0].in_channels == 2
    assert aligned(small) == ["0"]


def test_several_inputs_and_a_dictionary_of_outputs():
    def run(net, x, y):
        a, b = net.a(x), net.b(y)
        return {"sum": net.c(a + b), "features": [a, None, "text"]}

    net = Net(run, a=masked(conv(3, SIX), KEEP), b=masked(conv(2, SIX), (0, 1)), c=conv(SIX, 4))
    small = shrunk(net, (X, X[:, :2]))
    assert (small.a.out_channels, small.b.out_channels, small.c.in_channels) == (4, 2, 5)


def test_what_is_an_output_and_read_inside_stays_whole_for_both():
    def run(net, x):
        y = net.before(x)
        return net.after(y), y

    small = shrunk(Net(run, before=conv(3, SIX), after=masked(conv(SIX, 4), KEEP, "input")), X)
    assert small.before.out_channels == SIX
    assert small.after.in_channels == 4
    assert aligned(small) == ["after"]


def test_two_readers_of_a_tensor_may_want_different_channels():
    run = lambda n, x: n.a(y := n.before(x)) + n.b(y)  # noqa: E731
    net = Net(
        run, before=conv(3, SIX), a=masked(conv(SIX, 4), (0, 1), "input"), b=masked(conv(SIX, 4), (1, 4), "input")
    )
    small = shrunk(net, X)
    assert (small.before.out_channels, small.a.in_channels, small.b.in_channels) == (3, 2, 2)
    assert aligned(small) == ["a", "b"]


def test_network_that_is_one_layer():
    layer = masked(conv(3, SIX), KEEP)
    small = shrunk(layer, X)
    assert isinstance(small, Aligned)
    assert small.out_channels == 4


# few channels, and all of them


@pytest.mark.parametrize("kept", [(), (5,)])
@pytest.mark.parametrize("masks", ["producer", "consumer"])
@pytest.mark.parametrize("middle", [nn.ReLU(), nn.Sigmoid(), nn.BatchNorm2d(SIX), nn.GroupNorm(3, SIX)], ids=repr)
def test_layer_almost_or_wholly_gone_keeps_a_channel(kept, masks, middle):
    small = shrunk(sandwich(middle, kept, masks), X)
    most = 2 if isinstance(middle, nn.GroupNorm) else 1
    assert 1 <= small.before.out_channels <= most
    assert 1 <= small.after.in_channels <= most


def test_networks_of_one_channel():
    layers = [masked(conv(1, 1, 3), (0,)), nn.BatchNorm2d(1), nn.ReLU(), masked(conv(1, 1), (0,), "input")]
    small = shrunk(lively(nn.Sequential(*layers)), torch.randn(2, 1, 8, 10))
    assert not masks_left(small)


def test_unused_branch_and_unused_layer_are_no_error():
    net = sandwich(nn.ReLU())
    net.add_module("unused", masked(conv(3, 5), (1,)))
    small = shrunk(net, X)
    assert isinstance(small.unused, LeftOut)


# what may be relied on


def test_masks_that_may_still_change_hold_their_channels():
    net = sandwich(nn.ReLU())
    nothing = analyse(net, trace(net, X), Mode(settled=lambda mask: False, training=False))
    assert nothing.cuts == {}


def test_training_relies_on_no_shift():
    net = sandwich(nn.Sequential(nn.BatchNorm2d(SIX), nn.ReLU()))
    flow = trace(net, X)
    assert "before" in analyse(net, flow, FINAL).cuts
    training = analyse(net, flow, Mode(settled=lambda mask: True, training=True))
    assert "after" not in training.cuts  # the shift of a dead channel trains
    assert len(training.cuts["before"].outputs) == 4


def test_training_looks_at_masks_alone():
    net = sandwich(nn.ReLU())
    mode = Mode(settled=lambda mask: True, training=True)
    cuts = analyse(net, trace(net, X), mode).cuts
    for parameter in net.parameters():
        nn.init.constant_(parameter, torch.nan)
    assert cuts
    assert analyse(net, trace(net, X), mode).cuts == cuts


def test_training_relies_on_no_weight_that_happens_to_be_zero():
    net = sandwich(nn.ReLU(), kept=range(SIX))
    nn.init.zeros_(net.after.weight)
    training = analyse(net, trace(net, X), Mode(settled=lambda mask: True, training=True))
    assert {
        path: cut.outputs for path, cut in training.cuts.items() if len(cut.outputs) != SIX and path == "before"
    } == {}


# other numbers


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-2), (torch.bfloat16, 5e-2), (torch.float64, 1e-6)])
def test_other_precisions(dtype, tolerance):
    middle = nn.Sequential(nn.BatchNorm2d(SIX), nn.Sigmoid(), nn.InstanceNorm2d(SIX, affine=True), nn.GroupNorm(3, SIX))
    net = sandwich(middle).to(dtype)
    small = shrink(net, X.to(dtype))
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}
    assert small.before.out_channels == 4
    assert_same(outputs(net, X.to(dtype)), outputs(small, X.to(dtype)), tolerance)


def test_inputs_are_not_overwritten_and_may_be_on_the_meta_device():
    net = nn.Sequential(nn.ReLU(inplace=True), masked(conv(3, SIX), KEEP), conv(SIX, 4)).eval()
    x = X.clone()
    shrink(net, x)
    assert torch.equal(x, X)
    assert shrink(net, X.to("meta"))[1].out_channels == 4


def test_constant_of_a_layer_that_is_read_by_nobody_stays_what_it_was():
    # the sum knows the constants of `dead`, so nobody reads them; yet its first channel exists
    dead = masked(conv(3, 3, 3, padding=1, groups=3), (2,), "weight")
    before = masked(conv(3, 3), (0, 1))
    run = lambda n, x: n.after(n.add(n.dead(n.before(x)), torch.sigmoid(x)))  # noqa: E731
    small = shrunk(Net(run, before=before, dead=dead, add=Add(), after=conv(3, 4)), X)
    assert small.dead.out_channels == 1
    assert analysed(small, X).cuts == {}
