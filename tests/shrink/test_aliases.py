"""What reaches a tensor by another way: a view that is overwritten, a parameter that a function reads, a hook."""

from copy import deepcopy

import pytest
import torch
from masked_nets import KEEP, SIX, Net, conv, held, lively, masked, shrunk
from torch import nn
from torch.nn import functional as F

from qprune.shrink import shrink_with_facts
from qprune.zoo import Add

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))

# writes through views


def write_in_view(net, y):
    y[:, :3].mul_(2).add_(1)


def write_in_reshaped(net, y):
    y.view(2, SIX, 80).sub_(0.7).relu_()


def write_in_part(net, y):
    y.chunk(2, 1)[1].add_(3)


def write_in_both(net, y):
    for part in y.unbind(1):
        part.add_(1)


def write_in_layer(net, y):
    net.relu(y[:, 2:])


def write_by_index(net, y):
    y[:, :4][:, 1] = 5


def write_without_result(net, y):
    torch._foreach_add_([y[:, 1:2]], 1.0)


def write_into_out(net, y):
    torch.add(y[:, :1], 4, out=y[:, 1:2])


def write_in_data(net, y):
    y.data[:, 1].add_(1)


def write_behind_identity(net, y):
    net.same(y).add_(1)


def write_behind_flattening(net, y):
    net.flatten(y).add_(1)


WRITES = [
    write_in_view, write_in_reshaped, write_in_part, write_in_both, write_in_layer, write_by_index,
    write_without_result, write_into_out, write_in_data, write_behind_identity, write_behind_flattening,
]  # fmt: skip


def written(write, before, after):
    """A network that reads a tensor again after it was overwritten by another name."""

    def run(net, x):
        y = net.before(x)
        write(net, y)
        return net.after(y) + net.other(y)

    layers = {"relu": nn.ReLU(inplace=True), "same": nn.Identity(), "flatten": nn.Flatten()}
    return Net(run, before=before, after=after, other=masked(conv(SIX, 4), (1, 4), "input"), **layers)


@pytest.mark.parametrize("write", WRITES)
def test_tensor_overwritten_through_a_view_is_whole_when_it_is_read_again(write):
    producer = written(write, masked(conv(3, SIX), KEEP), conv(SIX, 4))
    shrunk(producer, X)
    assert any("it overwrites what is read again behind it" in sentence for sentence in held(producer, X))
    consumer = written(write, conv(3, SIX), masked(conv(SIX, 4), KEEP, "input"))
    small = shrunk(consumer, X)
    assert (small.after.in_channels, small.other.in_channels) == (4, 2)


def test_view_of_a_tensor_that_is_overwritten_is_whole_when_it_is_read():
    def run(net, x):
        y = net.before(x)
        view = y[:, 1:]
        y.add_(1)
        return net.after(view)

    shrunk(Net(run, before=masked(conv(3, SIX), KEEP), after=conv(5, 4)), X)


def test_overwritten_twice_by_two_names():
    def run(net, x):
        y = net.before(x)
        y.view(2, SIX, 80).add_(1)
        y[:, 3:].mul_(3)
        return net.after(y)

    shrunk(Net(run, before=masked(conv(3, SIX), KEEP), after=masked(conv(SIX, 4), (0, 1, 4), "input")), X)


def test_overwritten_view_is_an_output():
    def run(net, x):
        y = net.before(x)
        y[:, :2].add_(1)
        return net.after(y[:, 2:]), y

    shrunk(Net(run, before=masked(conv(3, SIX), KEEP), after=conv(4, 4)), X)


def test_overwriting_what_nobody_else_reads_is_no_barrier():
    def run(net, x):
        y = net.before(x)
        return net.after(y.mul_(2).relu_().view(2, SIX, 8, 10))

    def through_layers(net, x):
        return net.after(net.relu(net.same(net.before(x))))

    for forward in (run, through_layers):
        net = Net(
            forward,
            before=masked(conv(3, SIX), KEEP),
            after=conv(SIX, 4),
            relu=nn.ReLU(inplace=True),
            same=nn.Identity(),
        )
        if forward is through_layers:
            assert shrunk(net, X).after.in_channels == 4
            assert held(net, X) == ()
        else:
            shrunk(net, X)


def test_writes_are_seen_in_inference_mode():
    net = written(write_in_view, masked(conv(3, SIX), KEEP), conv(SIX, 4)).eval()
    with torch.inference_mode():
        small = shrink_with_facts(net, X.clone()).net
        assert torch.allclose(net(X), small(X), atol=1e-5)


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


def test_tensor_that_is_overwritten_three_times_is_followed():
    def run(net, x):
        y = net.before(x)
        z = y.add_(1)
        z.mul_(2)
        net.relu(y)
        return net.after(z) + y

    shrunk(Net(run, before=masked(conv(3, SIX), KEEP), after=conv(SIX, SIX), relu=nn.ReLU(inplace=True)), X)
