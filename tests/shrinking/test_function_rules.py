"""Channels along other dimensions than the second, or moved about: what a mask drops goes from both sides of it."""

import pytest
import torch
import torch.nn.functional as F
from masked_nets import KEEP, SIX, Net, aligned, conv, held, masked, outputs, sandwich, shrunk
from torch import nn

from qprune.layers import Align, Aligned
from qprune.shrinking import rebuild, record, shrink

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))
TALL = (2, 4, 5)  # batch, height and width of images with their channels last


def exact(net, x=X):
    """The shrunk network, the same in float64 to a millionth."""
    net = net.double().eval()
    small = shrink(net, x.double())
    one, other = (outputs(each, x.double()) for each in (net, small))
    assert one.shape == other.shape
    assert (one - other).abs().max() <= 1e-6 * one.abs().max()
    return small


def channels(small):
    return small.before.out_channels, small.after.in_channels


def groups(x, count):
    n, c, h, w = x.shape
    return x.view(n, count, c // count, h, w)


# between two convolutions of six channels, of which four are kept
MOVES = {
    "there and back": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "transposed": lambda x: x.transpose(1, -1).mT.transpose(2, 3).transpose(-1, 1),
    "tokens": lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(2, SIX, 8, 10),
    "shuffled": lambda x: groups(x, 2).transpose(1, 2).flatten(1, 2),
    "by torch": lambda x: torch.channel_shuffle(x, 3),
    "flipped": lambda x: x.flip(1),
    "flipped in space": lambda x: x.flip((2, 3)),
    "rolled": lambda x: x.roll(2, 1),
    "rolled in space": lambda x: x.roll((1, -2), (2, 3)),
    "halves": lambda x: torch.cat((x[:, 3:], x[:, :3]), 1),
    "every other": lambda x: torch.cat((x[:, ::2], x[:, 1::2]), 1),
    "stacked": lambda x: torch.stack((x[:, :3], x[:, 3:]), 2).flatten(1, 2),
    "unbound": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "in space": lambda x: torch.cat((x, 2 * x), 2),
    "pooled both ways": lambda x: torch.cat((x.mean(2, keepdim=True).transpose(2, 3), x.mean(3, keepdim=True)), 2),
    "expanded": lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x),
    "windows": lambda x: x.view(2, SIX, 4, 2, 5, 2).permute(0, 2, 4, 3, 5, 1).flatten(0, 2).permute(0, 3, 1, 2),
}  # fmt: skip


@pytest.mark.parametrize("masks", ["producer", "consumer"])
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_what_is_moved_goes_before_and_behind(move, masks):
    small = exact(sandwich(nn.Identity(), masks=masks, run=lambda n, x: n.after(move(n.before(x)))))
    assert channels(small) == (4, 4)


def test_layers_that_move_channels_are_as_their_functions():
    small = exact(sandwich(nn.ChannelShuffle(3)))
    assert channels(small) == (4, 4)


def test_of_pixels_that_are_shuffled_a_convolution_reads_what_is_not_zero_everywhere():
    whole = [c for c in range(12) if c // 4 != 1]  # of three channels behind it the one in the middle is all zeros
    net = Net(
        lambda n, x: n.after(n.up(n.before(x))),
        before=masked(conv(3, 12), whole[:-1]),
        up=nn.PixelShuffle(2),
        after=conv(3, 5),
    )
    small = exact(net)
    assert channels(small) == (7, 2)
    assert aligned(small) == ["before", "after"]


def test_pixels_that_are_unshuffled_are_read_by_their_own_channels():
    net = Net(
        lambda n, x: n.after(F.pixel_unshuffle(n.before(x), 2)),
        before=conv(3, 3),
        after=masked(conv(12, 5), [0, 5], "input"),
    )
    assert channels(exact(net)) == (2, 2)


@pytest.mark.parametrize("gate", [lambda n, x: F.glu(x, 1), lambda n, x: n.gate(x)], ids=["function", "layer"])
@pytest.mark.parametrize(("kept", "into", "masks"), [((0, 3, 4), 1, "producer"), ((1,), 1, "consumer")])
def test_a_gate_has_no_use_for_the_gate_of_a_zero(gate, kept, into, masks):
    net = Net(lambda n, x: n.after(gate(n, n.before(x))), before=conv(3, SIX), gate=nn.GLU(1), after=conv(3, 5))
    masked(net.before, kept) if masks == "producer" else masked(net.after, kept, "input")
    small = exact(net)
    assert small.after.in_channels == into
    assert small.before.out_channels == 2


def test_sums_over_a_part_of_the_channels():
    def run(n, x):
        return n.after((groups(n.before(x), 2) * n.gate(x).view(2, 2, 3, 1, 1)).sum(1))

    net = Net(run, before=masked(conv(3, SIX), (0, 3, 5)), gate=nn.Sequential(conv(3, SIX), nn.AdaptiveAvgPool2d(1)),
              after=conv(3, 5))  # fmt: skip
    small = exact(net)
    assert channels(small) == (3, 2)
    assert small.gate[0].out_channels == 3


# channels at the last dimension


class Mixer(nn.Module):
    """As in ConvNeXt: a depthwise convolution, and a perceptron of each pixel, scaled and added."""

    def __init__(self, width):
        super().__init__()
        self.spread, self.norm = conv(width, width, 3, padding=1, groups=width), nn.LayerNorm(width)
        self.wide, self.act, self.narrow = nn.Linear(width, 7), nn.GELU(), nn.Linear(7, width)
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        y = self.norm(self.spread(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(self.act(self.wide(y)))).permute(0, 3, 1, 2)


def mixer():
    torch.manual_seed(3)
    net = nn.Sequential(conv(3, SIX), Mixer(SIX), conv(SIX, 4))
    nn.init.uniform_(net[1].norm.weight, 0.5, 1.5)
    nn.init.normal_(net[1].norm.bias)
    return net


@pytest.mark.parametrize("layer", ["wide", "act"])
def test_perceptrons_of_pixels_lose_their_inner_features(layer):
    net = mixer()
    inner = getattr(net[1], layer)
    masked(inner, (0, 4, 6), channels=7) if layer == "wide" else masked_last(inner, (0, 4, 6))
    small = exact(net)
    assert (small[1].wide.out_features, small[1].narrow.in_features) == (3, 3)


def masked_last(layer, kept):
    from masked_nets import hosted

    mask = hosted(layer).add_mask("output", channels=7, axis=-1)
    mask.keep[:] = False
    mask.keep[list(kept)] = True
    return layer


def test_of_what_is_normalized_together_only_readers_can_do_without_some():
    net = mixer()
    masked(net[1].wide, KEEP, "input")
    small = exact(net)
    assert small[1].wide.in_features == 4
    assert small[1].norm.normalized_shape == (SIX,)
    assert small[1].spread.out_channels == SIX
    assert aligned(small) == ["1.norm"]
    assert small[1].norm.result.axis == -1


def test_a_constant_is_put_back_where_a_normalization_wants_it():
    net = mixer()
    masked(net[1].spread, KEEP, "input")
    small = exact(net)
    assert small[1].spread.in_channels == 4
    assert small[1].norm.normalized_shape == (SIX,)


def test_what_is_moved_along_the_last_dimension_is_recorded_and_rebuilt():
    net = mixer()
    masked(net[1].wide, KEEP, "input")
    small, again = shrink(net.eval(), X), mixer()
    masked(again[1].wide, KEEP, "input")
    rebuild(again, record(small))
    again.load_state_dict(small.state_dict())
    assert isinstance(again[1].norm, Aligned)
    assert torch.equal(outputs(again.eval(), X), outputs(small, X))


def test_channels_are_picked_and_put_back_along_the_last_dimension():
    x = torch.randn(*TALL, 3)
    assert torch.equal(Align([2, 0], axis=-1)(x), x[..., [2, 0]])
    filled = Align([-1, 1], fill=[5.0, 0.0], axis=-1)(x)
    assert torch.equal(filled[..., 1], x[..., 1])
    assert (filled[..., 0] == 5).all()


def test_layers_read_along_another_dimension_than_they_are_made_keep_everything():
    net = Net(lambda n, x: n.mix(n.before(x)), before=masked(conv(3, SIX), KEEP), mix=nn.Linear(10, 4))
    small = shrunk(net, X)  # the linear layer mixes columns
    assert small.before.out_channels == 4
    assert small.mix.in_features == 10
    assert outputs(small, X).shape == (2, SIX, 8, 4)
    assert held(net, X) == ()


def test_a_scan_along_channels_is_a_barrier_with_a_name():
    net = sandwich(
        nn.Identity(), run=lambda n, x: n.after(n.before(x).permute(0, 2, 3, 1).cumsum(-1).permute(0, 3, 1, 2))
    )
    small = exact(net)
    assert channels(small) == (4, SIX)
    assert any("cumsum" in sentence for sentence in held(net, X.double()))
