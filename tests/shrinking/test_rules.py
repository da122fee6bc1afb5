"""Every operation that is understood, between two convolutions: what a mask drops goes from both."""

import pytest
import torch
import torch.nn.functional as F
from masked_nets import KEEP, SIX, Net, aligned, conv, held, hosted, lively, masked, masks_left, sandwich, shrunk
from torch import nn

from qprune.layers import FakeQuant
from qprune.zoo import Add, Concat

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))
BY_EACH = pytest.mark.parametrize("masks", ["producer", "consumer"])


def channels(small):
    return small.before.out_channels, small.after.in_channels


ZERO_STAYS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.LeakyReLU(0.2),
    nn.SiLU(),
    nn.GELU(),
    nn.ELU(),
    nn.SELU(),
    nn.Mish(),
    nn.Hardswish(),
    nn.Tanh(),
    nn.Softsign(),
    nn.Hardtanh(),
    nn.Identity(),
    nn.Dropout(),
    nn.Dropout2d(),
    nn.MaxPool2d(2, padding=1),
    nn.AvgPool2d(2, padding=1),
    nn.AvgPool2d(3, ceil_mode=True),
    nn.AdaptiveAvgPool2d((3, 5)),
    nn.AdaptiveMaxPool2d((3, 5)),
    nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.ZeroPad2d((1, 2, 3, 4)),
    nn.ReflectionPad2d(2),
    nn.ReplicationPad2d(3),
    nn.InstanceNorm2d(SIX, affine=False),
]
MOVES_ZERO = [
    nn.Sigmoid(),
    nn.Hardsigmoid(),
    nn.Softplus(),
    nn.LogSigmoid(),
    nn.Hardtanh(0.5, 2.0),
    nn.BatchNorm2d(SIX),
    nn.BatchNorm2d(SIX, affine=False),
    nn.InstanceNorm2d(SIX, affine=True),
    nn.InstanceNorm2d(SIX, affine=True, track_running_stats=True),
]


@BY_EACH
@pytest.mark.parametrize("middle", [*ZERO_STAYS, *MOVES_ZERO], ids=repr)
def test_layer_of_single_channels_loses_what_a_mask_drops(middle, masks):
    net = sandwich(middle, masks=masks)
    small = shrunk(net, X)
    assert channels(small) == (4, 4)
    assert not aligned(small)
    assert not masks_left(small)
    assert not held(net, X)


@BY_EACH
@pytest.mark.parametrize(
    "middle",
    [
        nn.Sequential(m, p)
        for m in (nn.Sigmoid(), nn.BatchNorm2d(SIX))
        for p in (
            nn.MaxPool2d(2, padding=1),
            nn.AvgPool2d(3),
            nn.AdaptiveAvgPool2d(3),
            nn.Upsample(scale_factor=3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.ReflectionPad2d(2),
            nn.ReplicationPad2d(1),
            nn.ReLU(),
            nn.Softplus(),
        )
    ],
    ids=repr,
)
def test_constant_that_no_border_changes_becomes_a_bias(middle, masks):
    small = shrunk(sandwich(middle, masks=masks), X)
    assert channels(small) == (4, 4)
    assert not aligned(small)


@pytest.mark.parametrize("middle", [nn.ZeroPad2d(1), nn.AvgPool2d(2, padding=1)], ids=repr)
def test_constant_with_zeros_at_its_borders_stays(middle):
    small = shrunk(sandwich(nn.Sequential(nn.Sigmoid(), middle)), X)
    assert channels(small) == (4, 6)
    assert "middle.1" in aligned(small)


FUNCTIONS = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu_": torch.relu_,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "elu": F.elu,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "method": lambda x: x.sigmoid(),
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "hardtanh": F.hardtanh,
    "clamp": lambda x: x.clamp(0.5, 2),
    "abs": abs,
    "negative": lambda x: -x,
    "plus": lambda x: x + 0.3,
    "minus": lambda x: x - 0.3,
    "from one": lambda x: 1 - x,
    "times": lambda x: 2 * x,
    "square": lambda x: x**2,
    "halved": lambda x: x / 2,
    "in place": lambda x: x.mul_(2).add_(1),
    "exp": torch.exp,
    "device": lambda x: torch.sigmoid(x).to(x.device),
    "dtype": lambda x: x.to(torch.float64).to(x.dtype).float(),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x + 1, 3),
    "contiguous": lambda x: x.clone().contiguous(),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "dropout": lambda x: F.dropout(x, 0.5, False),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "mean": lambda x: (x + 1).mean((2, 3), keepdim=True),
    "bilinear": lambda x: F.interpolate(x + 1, scale_factor=2, mode="bilinear"),
    "sum": lambda x: x.sum(-1, keepdim=True),
    "pad": lambda x: F.pad(x, (1, 2)),
    "reflect": lambda x: F.pad(x + 1, (1, 2, 3, 1), mode="reflect"),
    "amax": lambda x: x.amax((-1, -2), keepdim=True),
    "crop": lambda x: (x + 1)[:, :, 1:-1, ::2],
    "crop with dots": lambda x: x[..., 2:5],
    "pixel": lambda x: x[:, :, 0, 1][..., None, None],
    "unsqueeze": lambda x: x.mean((2, 3)).unsqueeze(-1).unsqueeze(2),
    "squeeze": lambda x: x.sum(3, keepdim=True)[..., None].squeeze(-1),
    "flatten": lambda x: x.flatten(2).mean(-1, keepdim=True)[..., None],
    "itself": lambda x: x * x + x,
}


@BY_EACH
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_function_of_single_channels_loses_what_a_mask_drops(function, masks):
    net = sandwich(nn.Identity(), masks=masks, run=lambda net, x: net.after(function(net.before(x))))
    small = shrunk(net, X)
    assert channels(small) == (4, 4)
    assert not aligned(small)
    assert not held(net, X)


@BY_EACH
def test_group_normalization_loses_whole_groups(masks):
    small = shrunk(sandwich(nn.GroupNorm(3, SIX), kept=(0, 1, 4), masks=masks), X)
    assert (small.middle.num_groups, small.middle.num_channels) == (2, 4)
    assert small.after.in_channels == (4 if masks == "producer" else 3)
    assert small.before.out_channels == (3 if masks == "producer" else 4)  # zeros count in a group's statistics


def test_instance_normalization_moves_a_dead_channel_to_its_shift():
    net = sandwich(nn.InstanceNorm2d(SIX, affine=True))
    small = shrunk(net, X)
    gone = [1, 4]
    expected = net.after.bias + (net.after.weight[:, gone, 0, 0] * net.middle.bias[gone]).sum(1)
    torch.testing.assert_close(small.after.bias, expected)


# convolutions of every kind


WEIGHTED = {
    "plain": (conv(SIX, SIX, 3, padding=1), 4, 1),
    "strided": (conv(SIX, SIX, 3, stride=2, padding=1), 4, 1),
    "dilated": (conv(SIX, SIX, 3, dilation=2), 4, 1),
    "reflecting": (conv(SIX, SIX, 3, padding=1, padding_mode="reflect"), 4, 1),
    "depthwise": (conv(SIX, SIX, 3, padding=1, groups=SIX), 4, 4),
    "transposed": (nn.ConvTranspose2d(SIX, SIX, 3, stride=2), 4, 1),
    "depthwise transposed": (nn.ConvTranspose2d(SIX, SIX, 2, stride=2, groups=SIX), 4, 4),
}


@pytest.mark.parametrize(("middle", "into", "groups"), WEIGHTED.values(), ids=WEIGHTED)
def test_convolution_is_cut_on_both_sides(middle, into, groups):
    net = sandwich(middle, after=masked(conv(SIX, 4), (0, 2, 3), "input"))
    small = shrunk(net, X)
    both = groups == 4  # (0, 2, 3) of (0, 2, 3, 5)
    assert (small.middle.in_channels, small.middle.out_channels) == ((3, 3) if both else (into, 3))
    assert small.middle.groups == (3 if both else 1)
    assert small.before.out_channels == small.middle.in_channels
    assert not aligned(small)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize(
    ("inputs", "outs", "expected"),
    [  # of 3 groups with 4 inputs and 2 outputs: (in, out, groups) that stay
        ((0, 1, 4, 5, 8, 9), range(6), (6, 6, 3)),
        ((0, 4, 5, 6, 7, 8), range(6), (12, 6, 3)),  # as many of each group as of the fullest
        ((0, 1, 2, 3, 8), (0, 1, 4, 5), (8, 4, 2)),
        (range(12), (0, 1, 5), (8, 4, 2)),
        (range(12), (2,), (4, 1, 1)),
        ((5, 6), (2, 3), (2, 2, 1)),
        ((0, 3, 9, 10), (0, 5), (4, 2, 2)),
    ],
)
def test_grouped_convolution_keeps_groups_of_one_size(kind, inputs, outs, expected):
    before = masked(conv(3, 12), inputs)
    grouped = masked(kind(12, 6, 3, padding=1, groups=3), outs)
    small = shrunk(
        Net(lambda n, x: n.after(n.grouped(n.before(x))), before=before, grouped=grouped, after=conv(6, 5)), X
    )
    found = small.grouped.in_channels, small.grouped.out_channels, small.grouped.groups
    assert found == expected
    assert small.after.in_channels == len(outs)
    assert small.before.out_channels <= len(inputs)


def test_group_without_inputs_is_its_bias():
    before, grouped = masked(conv(3, 12), (0, 1, 8)), conv(12, 6, 3, groups=3)
    small = shrunk(
        Net(lambda n, x: n.after(n.grouped(n.before(x))), before=before, grouped=grouped, after=conv(6, 5)), X
    )
    assert (small.grouped.in_channels, small.grouped.groups, small.after.in_channels) == (4, 2, 4)


def test_depthwise_convolution_with_a_multiplier_keeps_as_many_of_each():
    middle = masked(conv(4, 12, 3, padding=1, groups=4), (0, 1, 2, 3, 9))
    small = shrunk(
        Net(lambda n, x: n.after(n.middle(n.before(x))), before=conv(3, 4), middle=middle, after=conv(12, 5)), X
    )
    assert (small.middle.in_channels, small.middle.out_channels, small.middle.groups) == (3, 9, 3)
    assert small.before.out_channels == 3
    assert small.after.in_channels == 5


def test_transposed_convolution_given_a_size_is_cut():
    middle = nn.ConvTranspose2d(SIX, SIX, 3, stride=2)
    net = sandwich(middle, run=lambda n, x: n.after(n.middle(n.before(x), output_size=[18, 22])))
    assert shrunk(net, X).middle.in_channels == 4


def test_weights_that_are_zero_read_nothing():
    net = sandwich(nn.ReLU(), kept=range(SIX))
    with torch.no_grad():
        net.after.weight[:, [1, 4]] = 0
    assert channels(shrunk(net, X)) == (4, 4)


# linear layers


def flat_net(flat, kept=KEEP, **layers):
    net = sandwich(
        nn.ReLU(), kept, after=nn.Linear(SIX * 80, 4), run=lambda n, x: n.after(flat(n, n.middle(n.before(x))))
    )
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


FLAT = {
    "module": lambda n, x: n.flattened(x),
    "torch.flatten": lambda n, x: torch.flatten(x, 1),
    "method": lambda n, x: x.flatten(1),
    "view": lambda n, x: x.view(x.size(0), -1),
    "reshape": lambda n, x: x.reshape(x.shape[0], -1),
    "view of a tuple": lambda n, x: x.view((x.size(0), -1)),
}


@pytest.mark.parametrize("flat", FLAT.values(), ids=FLAT)
def test_flattening_carries_channels_with_all_their_positions(flat):
    small = shrunk(flat_net(flat, flattened=nn.Flatten()), X)
    assert small.before.out_channels == 4
    assert small.after.in_features == 4 * 80
    assert not aligned(small)


@pytest.mark.parametrize("flat", [lambda n, x: x.view(-1, SIX * 80), lambda n, x: x.reshape(2, SIX * 80)])
def test_size_in_the_code_keeps_the_channels_around_it_but_not_the_weights(flat):
    net = flat_net(flat)
    small = shrunk(net, X)
    assert small.before.out_channels == 4
    assert small.after.in_features == 4 * 80
    assert aligned(small) == ["middle", "after"]  # puts the zeros back, picks what it reads
    (reason,) = held(net, X)
    assert "view" in reason or "reshape" in reason


def test_linear_layer_loses_positions_that_its_mask_drops():
    net = flat_net(lambda n, x: x.flatten(1), kept=range(SIX))
    masked(net.after, [*range(80), 83], "input")
    small = shrunk(net, X)
    assert small.before.out_channels == 2
    assert small.after.in_features == 81


def test_linear_chain_with_one_dimensional_normalization():
    layers = [masked(nn.Linear(5, 7), (0, 3, 6)), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 4)]
    small = shrunk(lively(nn.Sequential(*layers)), torch.randn(3, 5))
    assert (small[0].out_features, small[1].num_features, small[3].in_features) == (3, 3, 3)


def test_linear_layers_over_tokens_lose_features():
    net = Net(lambda n, x: n.b(n.a(x)), a=masked(nn.Linear(5, 6), KEEP), b=nn.Linear(6, 4))
    small = shrunk(net, torch.randn(2, 3, 5))
    assert (small.a.out_features, small.b.in_features) == (4, 4)
    assert held(net, torch.randn(2, 3, 5)) == ()


# constants and borders


def test_constant_becomes_bias_before_a_convolution_without_borders():
    small = shrunk(sandwich(nn.Sigmoid(), after=conv(SIX, 4, 3)), X)
    assert channels(small) == (4, 4)
    assert not aligned(small)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_constant_becomes_bias_where_borders_repeat_it(mode):
    small = shrunk(sandwich(nn.Sigmoid(), after=conv(SIX, 4, 3, padding=1, padding_mode=mode)), X)
    assert channels(small) == (4, 4)


@pytest.mark.parametrize(
    "after", [conv(SIX, 4, 3, padding=1), conv(SIX, 4, 3, padding="same"), nn.ConvTranspose2d(SIX, 4, 3)]
)
def test_constant_stays_where_borders_would_differ(after):
    small = shrunk(sandwich(nn.Sigmoid(), after=after), X)
    assert channels(small) == (4, 6)
    assert aligned(small) == ["after"]  # which makes the constants that nobody computes


def test_zeros_go_whatever_the_borders():
    small = shrunk(sandwich(nn.ReLU(), after=nn.ConvTranspose2d(SIX, 4, 3)), X)
    assert channels(small) == (4, 4)


def test_bias_appears_where_there_was_none():
    small = shrunk(sandwich(nn.Softplus(), after=conv(SIX, 4, bias=False)), X)
    assert small.after.bias is not None
    assert small.before.out_channels == 4


def test_normalization_with_scale_zero_is_a_constant():
    net = sandwich(nn.BatchNorm2d(SIX), kept=range(SIX))
    with torch.no_grad():
        net.middle.weight[[1, 4]] = 0
    small = shrunk(net, X)
    assert channels(small) == (4, 4)
    assert small.middle.num_features == 4


# channels of zeros around those that there are


def widened(pad, kept=range(2, 9), into=9, **layers):
    """A convolution with a mask, channels of a constant around its own, and a convolution with a mask at its input."""
    after = masked(conv(into, 4), kept, "input")
    run = layers.pop("run", lambda net, x: net.after(pad(net.before(x))))
    return lively(Net(run, before=masked(conv(3, SIX, 3, padding=1), KEEP), after=after, **layers))


PADS = {
    "around": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "around, by name": lambda x: F.pad(x[:, :, ::2, 1::2], pad=[0, 0, 0, 0, 1, 2], mode="constant", value=0),
    "with borders": lambda x: F.pad(x, (1, 2, 0, 1, 1, 2)),
    "with the batch": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2, 0, 0)),
    "ones": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2), value=1.0),
    "ones at the borders": lambda x: F.pad(x, (1, 1, 0, 0, 1, 2), value=1.0),
}


@pytest.mark.parametrize("pad", PADS.values(), ids=PADS)
def test_channels_that_a_pad_adds_hold_nothing_before_it(pad):
    net = widened(pad)
    small = shrunk(net, X)
    # 0, 2, 3, 5 of six are kept, and lie at 1, 3, 4, 6 behind it; 0 and 1 are not read
    assert small.before.out_channels == 3
    assert held(net, X) == ()


def test_a_sum_picks_what_it_wants_of_padded_channels():
    def run(net, x):
        y = net.before(x)
        return net.after(net.add(F.pad(y, (0, 0, 0, 0, 1, 2)), net.other(x)))

    other = masked(conv(3, 9, 3, padding=1), (3, 6, 8))
    small = shrunk(widened(None, kept=(3, 6, 8), run=run, other=other, add=Add()), X)
    assert (small.before.out_channels, small.other.out_channels, small.after.in_channels) == (2, 3, 3)
    assert aligned(small) == ["add"]


@pytest.mark.parametrize("sizes", [(0, 0, 0, 0, -1, 2), (0, 0, 0, 0, 1, 2, 0, 1)], ids=["cropping", "batch"])
def test_pads_that_crop_channels_or_add_images_move_them(sizes):
    net = widened(lambda x: F.pad(x, sizes), kept=range(5), into=SIX + sizes[4] + sizes[5])
    shrunk(net, X)
    assert held(net, X) == ("pad: the network's own code moves channels by number",)


# sums, concatenations, gates, slices


def two_branches(join, **layers):
    left, right = masked(conv(3, SIX, 3, padding=1), (0, 1, 3)), masked(conv(3, SIX), (0, 2, 3))
    return lively(Net(lambda n, x: n.after(join(n, n.left(x), n.right(x))), left=left, right=right, **layers))


SUMS = {
    "module": lambda n, a, b: n.add(a, b),
    "operator": lambda n, a, b: a + b,
    "in place": lambda n, a, b: a.add_(b),
    "augmented": lambda n, a, b: a.__iadd__(b),
    "weighted": lambda n, a, b: torch.add(a, b, alpha=2),
    "difference": lambda n, a, b: a - b,
    "reversed": lambda n, a, b: torch.rsub(a, b),
    "larger": lambda n, a, b: torch.maximum(a, b),
}


@pytest.mark.parametrize("join", SUMS.values(), ids=SUMS)
def test_sum_keeps_what_any_summand_has(join):
    small = shrunk(two_branches(join, add=Add(), after=conv(SIX, 4)), X)
    assert small.after.in_channels == 4
    assert (small.left.out_channels, small.right.out_channels) == (3, 3)
    assert aligned(small)  # zeros are put where the other branch has something


@pytest.mark.parametrize(
    "join",
    [lambda n, a, b: n.concat(a, b), lambda n, a, b: torch.cat([a, b], 1), lambda n, a, b: torch.cat((a, b), dim=1)],
)
def test_concatenation_joins_what_is_left(join):
    small = shrunk(two_branches(join, concat=Concat(), after=conv(2 * SIX, 4)), X)
    assert small.after.in_channels == 6
    assert (small.left.out_channels, small.right.out_channels) == (3, 3)
    assert not aligned(small)


@pytest.mark.parametrize("join", [lambda n, a, b: n.concat(a, b), lambda n, a, b: torch.cat([a, b], 1)])
@pytest.mark.parametrize("reads", [range(6), range(6, 12), (6, 11), (5,)])
def test_branch_that_nobody_reads_is_gone_but_for_a_channel(join, reads):
    after = masked(conv(12, 4), reads, "input")
    net = Net(
        lambda n, x: n.after(join(n, n.a(x), n.b(x))),
        a=conv(3, 6),
        b=conv(3, 6, 3, padding=1),
        concat=Concat(),
        after=after,
    )
    small = shrunk(net, X)
    gone = small.b if max(reads) < 6 else small.a
    assert gone.out_channels == 1
    assert small.after.in_channels == len(reads)


def test_flattened_branch_that_nobody_reads():
    after = masked(nn.Linear(160, 4), range(80, 160), "input")
    run = lambda n, x: n.after(torch.cat([n.a(x).flatten(1), n.b(x).flatten(1)], 1))  # noqa: E731
    small = shrunk(Net(run, a=conv(3, 1), b=conv(3, 1, 3, padding=1), after=after), X)
    assert small.after.in_features == 80


@pytest.mark.parametrize(
    "split",
    [
        lambda x: x.chunk(2, 1),
        lambda x: x.split(3, 1),
        lambda x: (x[:, :3], x[:, 3:]),
        lambda x: torch.tensor_split(x, 2, 1),
        lambda x: (x.narrow(1, 0, 3), x[:, 3:]),
        lambda x: (x[:, 0:6:2], x[:, 1::2]),
        lambda x: (x[:, [0, 4, 2]], x[:, [1, 1, 5]]),
    ],
)
def test_slices_are_followed_and_what_was_cut_is_put_back(split):
    def run(net, x):
        first, second = split(net.before(x))
        return net.a(first) + net.b(second)

    net = Net(run, before=masked(conv(3, SIX, 3, padding=1), KEEP), a=conv(3, 4), b=conv(3, 4))
    small = shrunk(net, X)
    picked = [set(each.flatten().tolist()) & set(KEEP) for each in split(torch.arange(6).view(1, 6, 1, 1))]
    assert small.before.out_channels == len(set.union(*picked))
    assert [small.a.in_channels, small.b.in_channels] == [len(each) for each in picked]
    assert aligned(small)
    assert "picks channels by number" in held(net, X)[0]


def test_channels_behind_a_slice_that_nobody_reads_go():
    net = Net(lambda n, x: n.after(n.before(x)[:, 1:4]), before=conv(3, SIX), after=conv(3, 4))
    assert shrunk(net, X).before.out_channels == 3


@pytest.mark.parametrize("split", [lambda x: x.chunk(2, 2), lambda x: x.split(4, 2), lambda x: x.chunk(2, 0)])
def test_slices_of_positions_are_no_error(split):
    def run(net, x):
        first, second = split(net.before(x))
        return net.after(first + second)

    small = shrunk(Net(run, before=masked(conv(3, SIX), KEEP), after=conv(SIX, 4)), X)
    assert small.before.out_channels == 4


def test_channels_picked_by_a_buffer_are_a_barrier():
    net = Net(lambda n, x: n.after(n.before(x)[:, n.order]), before=masked(conv(3, SIX), KEEP), after=conv(SIX, 4))
    net.register_buffer("order", torch.tensor([5, 4, 3, 2, 1, 0]))
    shrunk(net, X)
    assert "__getitem__" in held(net, X)[0]


GATES = {
    "pooled": lambda n, x: x * torch.sigmoid(n.gate(F.relu(n.squeeze(F.adaptive_avg_pool2d(x, 1))))),
    "in place": lambda n, x: n.gate(n.squeeze(x.mean((2, 3), keepdim=True))).sigmoid_().mul(x),
    "linear": lambda n, x: x * torch.sigmoid(n.lin(x.mean((2, 3))))[:, :, None, None],
    "one for all": lambda n, x: x * n.one(x).sigmoid(),
}


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_gate_loses_what_it_would_multiply_with_zero(gate):
    layers = {"squeeze": conv(SIX, 2), "gate": conv(2, SIX), "lin": nn.Linear(SIX, SIX), "one": conv(SIX, 1)}
    net = sandwich(nn.Identity(), run=lambda n, x: n.after(gate(n, n.before(x))))
    for name, layer in layers.items():
        net.add_module(name, layer)
    small = shrunk(net, X)
    assert channels(small) == (4, 4)
    if isinstance(small.gate, nn.Conv2d) and small.gate.out_channels < SIX:
        assert (small.squeeze.in_channels, small.gate.out_channels) == (4, 4)


def test_gate_that_is_shut_takes_its_channel_with_it():
    net = sandwich(nn.Identity(), kept=range(SIX), run=lambda n, x: n.after(n.before(x) * n.gate(x)))
    net.add_module("gate", masked(conv(3, SIX, 3, padding=1), KEEP))
    small = shrunk(net, X)
    assert (channels(small), small.gate.out_channels) == ((4, 4), 4)


# quantizers


def quantized(layer, side, per="tensor", low=-1.0, high=2.0, **options):
    quant = layer.add_quant(side, 4, per=per, channels=SIX, **options)
    quant.range[0], quant.range[1] = low, high
    scale, zero_point = quant.scale_and_zero_point(quant.range[0], quant.range[1])
    quant.scale.copy_(scale)
    quant.zero_point.copy_(zero_point)
    quant.active.fill_(True)
    return layer


@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("numerics", ["default", "paper"])
@pytest.mark.parametrize("middle", [nn.ReLU(), nn.BatchNorm2d(SIX)], ids=repr)
def test_quantizer_keeps_zero_and_the_ranges_of_what_stays(per, numerics, middle):
    net = sandwich(middle)
    quantized(hosted(net.middle), "output", per, numerics=numerics)
    if per == "channel":
        net.middle.output_quant.scale.mul_(torch.linspace(1, 2, SIX))
    small = shrunk(net, X)
    assert channels(small) == (4, 4)
    quant: FakeQuant = small.middle.output_quant
    expected = net.middle.output_quant.scale
    assert torch.equal(quant.scale, expected[list(KEEP)] if per == "channel" else expected)


def test_constant_is_quantized_before_it_becomes_a_bias():
    net = sandwich(nn.Sigmoid(), after=masked(conv(SIX, 4), range(SIX), "input"))
    quantized(net.after, "input", low=0.0, high=1.0)
    small = shrunk(net, X)
    half = net.after.input_quant(torch.tensor(0.5))
    assert half != 0.5
    added = net.after.weight[:, [1, 4], 0, 0].sum(1) * half
    torch.testing.assert_close(small.after.bias, net.after.bias + added)
