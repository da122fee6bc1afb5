"""Forwards that read a number of channels: what is computed with it stays what it was, or nothing was computed."""

import math

import pytest
import torch
import torch.nn.functional as F
from masked_nets import SIX, aligned, conv, held, hosted, masked, parameters, sandwich, shrunk
from torch import nn
from torch.utils._pytree import tree_leaves

from qprune.errors import ShrinkError
from qprune.shrinking import shrink, shrink_with_facts

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def quantized(net):
    """The sandwich with active quantizers at the inputs and weights of its convolutions."""
    for layer in (hosted(net.before), hosted(net.after)):
        layer.add_quant("weight", 4, per="channel").calibrate(layer.weight.detach())
        layer.add_quant("input", 8).calibrate(torch.tensor([-4.0, 4.0]))
    return net


def scaled(count):
    """A forward that multiplies the tensor between the convolutions by what ``count`` makes of it and the network."""
    return lambda n, x: n.after((h := n.before(x)) * count(n, h))


def by_hand(n, h, groups=3):
    b, c, height, width = h.shape
    grouped = h.reshape(b, groups, c // groups, height, width)
    mean, variance = grouped.mean((2, 3, 4), keepdim=True), grouped.var((2, 3, 4), keepdim=True)
    return ((grouped - mean) / (variance + 1e-5).sqrt()).view(b, c, height, width)


def attention(n, x):
    h = n.before(x)
    b, c, height, width = h.shape
    tokens = h.flatten(2)
    weights = torch.softmax(tokens.transpose(1, 2) @ tokens * c**-0.5, -1)
    return n.after((tokens @ weights).view(b, c, height, width))


def shuffled(n, x):
    h = n.before(x)
    b, c, height, width = h.size()
    return n.after(h.view(b, 2, c // 2, height, width).transpose(1, 2).reshape(b, -1, height, width))


def checked(n, x):
    h = n.before(x)
    assert h.shape[1] == SIX
    return n.after(h)


def of_first_image(n, h):
    return len(h[0]) ** -0.5


# numbers that are computed with, each a fact about the network before it was cut

COUNTS = {
    "shape[1]": lambda n, h: h.shape[1] ** 0.5,
    "shape[-3]": lambda n, h: 1 / h.shape[-3],
    "size(1)": lambda n, h: h.size(1) / 4,
    "size(dim=1)": lambda n, h: h.size(dim=1) // 4,
    "size()": lambda n, h: h.size()[1] * 0.5,
    "len": of_first_image,
    "numel": lambda n, h: h.numel() ** -0.25,
    "torch.numel": lambda n, h: torch.numel(h) ** -0.25,
    "stride": lambda n, h: h.stride()[0] ** -0.5,
    "stride(0)": lambda n, h: h.stride(0) ** -0.5,
    "math.sqrt": lambda n, h: math.sqrt(h.shape[1]),
    "math.log": lambda n, h: math.log(float(h.shape[1])),
    "math.prod": lambda n, h: math.prod(h.shape[1:]) ** -0.5,
    "comparison": lambda n, h: 2.0 if h.shape[1] > 5 else 3.0,
    "max": lambda n, h: max(h.shape[1], 5),
    "decision": lambda n, h: 2.0 if h.shape[1] - 4 else 3.0,
    "lookup": lambda n, h: {4: 2.0, 6: 3.0}[h.shape[1]],
    "bits": lambda n, h: (h.shape[1] << 1) & 6 | h.shape[1].bit_length(),
    "rounding": lambda n, h: round(h.shape[1] / 4) + math.ceil(h.shape[1] / 4) + math.floor(-h.shape[1] / 4),
    "remainder": lambda n, h: 5 - divmod(h.shape[1], 4)[1],
    "len of the weight": lambda n, h: len(n.before.weight) ** -0.5,
    "of the bias": lambda n, h: n.before.bias.numel() ** -0.5,
    "of the weight": lambda n, h: n.after.weight.shape[1] ** -0.5,
    "in_channels": lambda n, h: n.after.in_channels**-0.5,
    "out_channels": lambda n, h: n.before.out_channels / 4,
    "full": lambda n, h: torch.full((h.shape[1], 1, 1), 0.5, device=h.device),
    "arange": lambda n, h: torch.arange(h.shape[1], device=h.device, dtype=h.dtype).view(-1, 1, 1),
    "tensor": lambda n, h: torch.tensor(float(h.shape[1]), device=h.device),
}


@pytest.mark.parametrize("prepare", [lambda net: net, quantized], ids=["floats", "quantized"])
@pytest.mark.parametrize("count", COUNTS)
def test_a_number_of_channels_stays_what_is_computed_with(count, prepare):
    net = prepare(sandwich(nn.Identity(), run=scaled(COUNTS[count])))
    shrunk(net, X)
    assert held(net, X)


FORWARDS = {
    "attention": attention,
    "channel shuffle": shuffled,
    "group normalization": lambda n, x: n.after(by_hand(n, n.before(x))),
    "assertion": checked,
    "layer_norm": lambda n, x: n.after(F.layer_norm(h := n.before(x), h.shape[1:])),
    "new_zeros": lambda n, x: n.after((h := n.before(x)) + h.new_zeros(h.shape) + 1),
    "einsum": lambda n, x: n.after(torch.einsum("nchw,dc->ndhw", h := n.before(x), torch.eye(h.shape[1]).to(x))),
    "matmul": lambda n, x: n.after(
        (torch.ones(c := (h := n.before(x)).shape[1], c).to(x) @ h.flatten(2)).view(len(x), c, 8, 10)
    ),
    "view of another": lambda n, x: n.after(torch.sin(h := n.before(x)).flatten(2).view(*h.shape)),
    "expand": lambda n, x: n.after((h := n.before(x)) * x[:, :1].expand(h.shape)),
    "loop": lambda n, x: n.after(
        torch.stack([h[:, i] * i for i in range(h.shape[1])], 1) if (h := n.before(x)) is h else h
    ),
}


@pytest.mark.parametrize("prepare", [lambda net: net, quantized], ids=["floats", "quantized"])
@pytest.mark.parametrize("forward", FORWARDS)
def test_forwards_that_count_channels_compute_the_same(forward, prepare):
    net = prepare(sandwich(nn.Identity(), run=FORWARDS[forward]))
    shrunk(net, X)
    assert held(net, X)


def split_again(n, x):
    a, b = n.before(x), n.middle(x)
    joined = torch.relu(torch.cat([a, b], 1))
    first, second = torch.split(joined, [a.shape[1], b.shape[1]], 1)
    return n.after(first * second)


def split_by_layers(n, x):
    joined = torch.cat([n.before(x), n.middle(x)], 1)
    first, second = torch.split(joined, [n.before.out_channels, n.middle.out_channels], 1)
    return n.after(first * second)


def split_evenly(n, x):
    first, second = torch.cat([n.before(x), n.middle(x)], 1).split(n.after.in_channels, 1)
    return n.after(first + second)


def halved(n, x):
    joined = torch.cat([n.before(x), n.middle(x)], 1)
    first, second = joined.chunk(2, 1)
    return n.after(first + joined.split(joined.shape[1] // 2, dim=1)[1] * second)


def einsum_of_layer(n, x):
    return n.after(torch.einsum("nchw,dc->ndhw", n.before(x) + n.middle(x), torch.eye(n.after.in_channels).to(x)))


def matmul_of_layer(n, x):
    mixed = torch.eye(n.after.in_channels).to(x) @ (n.before(x) * n.middle(x)).flatten(2)
    return n.after(mixed.view(len(x), n.after.in_channels, 8, 10))


SHAPED = (split_again, split_by_layers, split_evenly, halved, einsum_of_layer, matmul_of_layer)


@pytest.mark.parametrize("masks", ["producer", "consumer"])
@pytest.mark.parametrize("run", SHAPED)
def test_shapes_that_are_made_of_numbers_of_channels_still_fit(run, masks):
    net = sandwich(masked(conv(3, SIX), (0, 4)), masks=masks, run=run)
    shrunk(net, X)
    assert held(net, X)


def other_view(n, x):
    h = n.before(x)
    b, c, height, width = h.shape
    return n.after(n.middle(x).flatten(2).view(b, c, height, width) + h)


def test_a_size_of_one_tensor_shapes_another():
    net = sandwich(conv(3, SIX), run=other_view)
    shrunk(net, X)
    assert any(
        reason.startswith("before: its number of channels is read for view in the forward") for reason in held(net, X)
    )


# numbers that Python hands on without a word

SILENT = {
    "log2": lambda n, h: math.log2(h.shape[1]),
    "range": lambda n, h: sum(0.5 for _ in range(h.shape[1])),
    "repeated": lambda n, h: len([0] * h.shape[1]) / 4,
    "text": lambda n, h: {"4": 2.0, "6": 3.0}[f"{h.shape[1]}"],
    "numel of a shape": lambda n, h: h.shape.numel() ** -0.25,
}


@pytest.mark.parametrize("prepare", [lambda net: net, quantized], ids=["floats", "quantized"])
@pytest.mark.parametrize("count", SILENT)
def test_numbers_whose_use_is_not_seen_are_held_once_a_difference_is(count, prepare):
    net = prepare(sandwich(nn.Identity(), run=scaled(SILENT[count])))
    shrunk(net, X)
    facts = shrink_with_facts(net, X)
    assert facts.analysis.held == ("before: its number of channels is read for something in the forward of Net",)


@pytest.mark.parametrize("prepare", [lambda net: net, quantized], ids=["floats", "quantized"])
def test_a_difference_that_nothing_explains_is_an_error(prepare):
    net = prepare(sandwich(nn.ReLU(), run=scaled(lambda n, h: math.log2(n.before.out_channels))))
    with pytest.raises(ShrinkError, match=r'does not compute .* It begins before or in "after" \('):
        shrink(net, X)


# what it says


class Scaled(nn.Module):
    def forward(self, x):
        return x / x.shape[1]


def test_what_is_held_names_the_layer_the_use_and_the_module():
    assert held(sandwich(Scaled()), X) == (
        "before: its number of channels is read for div in the forward of Scaled (middle)",
    )
    net = sandwich(nn.Identity(), run=scaled(lambda n, h: n.after.in_channels))
    assert held(net, X) == ("after: its number of channels is read for mul in the forward of Net",)
    net = sandwich(nn.ReLU(), run=lambda n, x: n.after(h) if (h := n.middle(n.before(x))).shape[1] > 3 else None)
    assert held(net, X) == ("middle: its number of channels is read for a comparison in the forward of Net",)


def test_only_the_counted_tensor_is_put_back():
    small = shrink(sandwich(Scaled()), X)
    assert (small.before.out_channels, small.after.in_channels) == (4, 4)
    assert small.before(X).shape[1] == SIX


def test_sizes_among_the_outputs_stay():
    net = sandwich(nn.Identity(), run=lambda n, x: (n.after(h := n.before(x)), h.shape[1], list(h.shape)))
    small = shrunk(net, X)
    assert tree_leaves(small(X))[1:] == [SIX, 2, SIX, 8, 10]


# what holds nothing

HARMLESS = {
    "interpolate": lambda n, x: n.after(F.interpolate(h := n.before(x), size=[2 * s for s in h.shape[-2:]])),
    "interpolate to another": lambda n, x: n.after(F.interpolate(n.before(x), size=x.size()[2:])),
    "pooling": lambda n, x: n.after(F.avg_pool2d(h := n.before(x), h.shape[2:])),
    "padding": lambda n, x: n.after(F.pad(h := n.before(x), (0, 12 - h.size(3), 0, 12 - h.size(2)))),
    "batch": lambda n, x: n.after(n.before(x) / len(x) * x.size(0)),
    "spatial": lambda n, x: n.after((h := n.before(x)) * (h.shape[2] * h.shape[3]) ** -0.5),
    "input channels": lambda n, x: n.after(n.before(x if x.shape[1] == 3 else x.repeat(1, 3, 1, 1))),
    "dimensions": lambda n, x: n.after((h := n.before(x)) * h.dim() * h.ndim),
    "unused": lambda n, x: n.after(h) if (h := n.before(x), h.shape[1] * 2)[1] is not None else None,
}


@pytest.mark.parametrize("forward", HARMLESS)
def test_sizes_of_batches_and_images_hold_nothing(forward):
    net = sandwich(nn.Identity(), run=HARMLESS[forward])
    small = shrunk(net, X)
    assert held(net, X) == ()
    assert aligned(small) == []
    assert parameters(small) == 4 * 27 + 4 + 4 * 4 + 4


@pytest.mark.parametrize(
    "flat", [lambda h: h.view(h.size(0), -1), lambda h: h.flatten(1), lambda h: h.reshape(len(h), -1)]
)
def test_flattening_holds_nothing(flat):
    net = sandwich(nn.Identity(), after=nn.Linear(SIX * 80, 7), run=lambda n, x: n.after(flat(n.before(x))))
    small = shrunk(net, X)
    assert held(net, X) == ()
    assert small.after.in_features == 4 * 80


def test_a_layer_may_read_its_own_sizes():
    middle = nn.Sequential(nn.InstanceNorm2d(SIX), nn.GroupNorm(3, SIX), conv(SIX, SIX, groups=SIX))
    net = sandwich(middle, kept=(0, 1))
    small = shrunk(net, X)
    assert held(net, X) == ()
    assert (small.middle[1].num_groups, small.middle[2].groups) == (1, 2)
