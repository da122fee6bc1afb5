"""What reaches a tensor through a view that is overwritten."""

import pytest
import torch
from masked_nets import KEEP, SIX, Net, conv, held, masked, shrunk
from torch import nn

from qprune.shrinking import shrink_with_facts

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


def test_tensor_that_is_overwritten_three_times_is_followed():
    def run(net, x):
        y = net.before(x)
        z = y.add_(1)
        z.mul_(2)
        net.relu(y)
        return net.after(z) + y

    shrunk(Net(run, before=masked(conv(3, SIX), KEEP), after=conv(SIX, SIX), relu=nn.ReLU(inplace=True)), X)
