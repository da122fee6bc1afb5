"""What is left of a layer: which entries, of which class, and what tells where they were."""

import pytest
import torch
from masked_nets import KEEP, SIX, Net, conv, lively, masked, sandwich, shrunk
from torch import nn

from qprune.layers import (
    ALIGNED,
    BiasQuant,
    CompressedConv2d,
    CompressedReLU,
    PrunedConv2d,
    PrunedQuantConv2d,
    PrunedQuantConvTranspose2d,
    PrunedQuantLinear,
    bare,
)
from qprune.shrinking import Cut, apply_cuts
from qprune.shrinking.cut import cut_of

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def cut(inputs, outputs, **options):
    return Cut((tuple(inputs),), tuple(outputs), (None,), None, **options)


def apply(layer, cut):
    net = nn.Sequential(layer)
    taken = apply_cuts(net, {"0": cut})
    return net[0], taken


# entries


@pytest.mark.parametrize(
    ("layer", "weight"),
    [
        (conv(5, 7, 3), lambda w: w[[1, 6]][:, [0, 2, 4]]),
        (nn.Linear(5, 7), lambda w: w[[1, 6]][:, [0, 2, 4]]),
        (nn.ConvTranspose2d(5, 7, 3), lambda w: w[[0, 2, 4]][:, [1, 6]]),
    ],
    ids=["conv", "linear", "transposed"],
)
def test_weight_keeps_the_rows_and_columns_that_stay(layer, weight):
    expected, bias = weight(layer.weight), layer.bias[[1, 6]]
    small, _ = apply(layer, cut((0, 2, 4), (1, 6)))
    assert torch.equal(small.weight, expected)
    assert torch.equal(small.bias, bias)


def test_grouped_weight_keeps_columns_by_group():
    layer = conv(6, 4, 3, groups=2)  # inputs 0 1 2 | 3 4 5, outputs 0 1 | 2 3
    whole = layer.weight.detach().clone()
    small, _ = apply(layer, cut((0, 2, 4, 5), (1, 2)))
    assert torch.equal(small.weight, torch.stack([whole[1, [0, 2]], whole[2, [1, 2]]]))
    assert small.groups == 2


def test_grouped_transposed_weight_keeps_columns_by_group():
    layer = nn.ConvTranspose2d(6, 4, 3, groups=2)
    whole = layer.weight.detach().clone()
    small, _ = apply(layer, cut((0, 2, 4, 5), (1, 2)))
    assert torch.equal(small.weight, whole[[0, 2, 4, 5]][torch.arange(4), [1, 1, 0, 0]][:, None])
    assert small(torch.randn(1, 4, 5, 5)).shape == (1, 2, 7, 7)


def test_normalization_keeps_its_statistics():
    norm = lively(nn.BatchNorm2d(5))
    expected = {name: tensor[[0, 3]] for name, tensor in norm.state_dict().items() if tensor.dim()}
    small, _ = apply(norm, cut((0, 3), (0, 3)))
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in expected.items())
    assert small.num_features == 2


# one object, other entries


def test_parameters_stay_the_same_objects_and_tell_what_they_kept():
    layer = conv(5, 7, 3)
    gradient = layer.weight.grad = torch.randn_like(layer.weight)
    weight, bias, moment = layer.weight, layer.bias, torch.randn(7, 5, 3, 3)
    small, taken = apply(layer, cut((0, 2), (1, 6)))
    assert small.weight is weight
    assert torch.equal(weight.grad, gradient[[1, 6]][:, [0, 2]])
    assert set(taken) == {weight, bias}
    assert torch.equal(taken[weight](moment), moment[[1, 6]][:, [0, 2]])


def test_channels_last_weights_stay_so():
    layer = conv(5, 7, 3).to(memory_format=torch.channels_last)
    small, _ = apply(layer, cut((0, 2, 3), (1, 4, 6)))
    assert small.weight.is_contiguous(memory_format=torch.channels_last)


def test_frozen_weights_stay_frozen():
    layer = conv(5, 7, bias=False).requires_grad_(False)
    small, _ = apply(layer, cut((0, 2), (1, 6), added_bias=(0.5, 0.0)))
    assert not small.weight.requires_grad
    assert not small.bias.requires_grad
    assert small.bias.tolist() == [0.5, 0.0]


# classes


def test_layer_without_masks_is_torchs_own_again():
    small = shrunk(nn.Sequential(masked(conv(3, SIX), KEEP), masked(nn.ReLU(), KEEP, channels=SIX), conv(SIX, 4)), X)
    assert [type(layer) for layer in small] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert not any("mask" in name for layer in small for name in vars(layer))


def test_quantizer_stays_in_its_host():
    layer = PrunedQuantConv2d(3, SIX, 1, weight_bits=4, act_bits=4)
    layer.input_mask.keep[1] = False
    small = shrunk(nn.Sequential(conv(3, 3), layer), X)
    assert type(small[1]) is CompressedConv2d
    assert small[1].input_mask is None
    assert small[1].input_quant is not None
    assert small[0].out_channels == 2


@pytest.mark.parametrize("host", [PrunedQuantConv2d, PrunedQuantConvTranspose2d])
def test_integer_weights_of_what_stays_are_the_same(host):
    layer = host(SIX, 5, 3, weight_bits=4, act_bits=4)
    layer.weight_quant.calibrate(layer.rows(layer.weight))
    net = nn.Sequential(masked(conv(3, SIX), KEEP), layer, masked(conv(5, 4), (0, 3), "input"))
    small = shrunk(net, X)
    integers, scales = (layer.rows(tensor)[[0, 3]][:, list(KEEP)] for tensor in layer.int_weight())
    found, found_scales = (small[1].rows(tensor) for tensor in small[1].int_weight())
    assert torch.equal(found, integers)
    assert torch.equal(found_scales, scales)


def test_linear_quantizer_is_cut_with_its_layer():
    layer = PrunedQuantLinear(6, 5, weight_bits=4, act_bits=4)
    layer.weight_quant.calibrate(layer.weight)
    net = nn.Sequential(masked(nn.Linear(3, 6), KEEP), layer, masked(nn.Linear(5, 4), (0, 3), "input"))
    small = shrunk(net, torch.randn(2, 3))
    assert torch.equal(small[1].int_weight()[0], layer.int_weight()[0][[0, 3]][:, list(KEEP)])


@pytest.mark.parametrize(
    "kind", [nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Dropout, nn.ZeroPad2d, nn.BatchNorm2d, PrunedConv2d]
)
def test_class_beneath_an_alignment(kind):
    arguments = {nn.ZeroPad2d: (1,), nn.BatchNorm2d: (3,), PrunedConv2d: (3, 4, 1)}.get(kind, ())
    layer = kind(*arguments)
    plain = CompressedConv2d if kind is PrunedConv2d else kind
    assert bare(layer) is plain
    layer.__class__ = ALIGNED[plain]
    assert bare(layer) is plain


def test_class_of_the_users_own_is_refused():
    with pytest.raises(KeyError, match="LocalResponseNorm"):
        bare(nn.LocalResponseNorm(5))


# what is remembered


def test_origin_counts_channels_of_the_first_network():
    layer = conv(5, 7, 3)
    small, _ = apply(layer, cut((0, 2, 4), (1, 3, 6)))
    small, _ = apply(small, cut((1, 2), (0, 2)))
    assert small.origin.inputs == ((2, 4),)
    assert small.origin.outputs == (1, 6)
    assert small.weight.shape == (2, 2, 3, 3)


def test_origin_tells_masks_that_went():
    small = shrunk(sandwich(nn.ReLU()), X)
    assert small.before.origin.masks == {"output": (True, False, True, True, False, True)}
    assert small.after.origin.inputs == (KEEP,)


def test_uncut_layer_is_described_by_its_own_cut():
    layer = CompressedReLU()
    assert cut_of(layer, (3,), 3) == Cut(((0, 1, 2),), (0, 1, 2), (None,), None)


def test_constants_of_two_cuts_add_up():
    net = sandwich(nn.Sigmoid(), after=masked(conv(SIX, 4, bias=False), range(SIX), "input"))
    first = shrunk(net, X)
    masked(first.before, (0, 2, 3))  # of channels 0, 2, 3, 5
    second = shrunk(first, X)
    assert second.after.in_channels == 3
    expected = net.after.weight[:, [1, 4, 2], 0, 0].sum(1) * 0.5
    torch.testing.assert_close(second.after.bias, expected)


def test_constant_is_added_to_the_bias_that_was_computed_with():
    layer = CompressedConv2d(5, 2, 3)
    layer.add_quant("weight", 8)
    layer.bias_quant = BiasQuant(2, levels=255)
    layer.bias_quant.settle(torch.tensor([0.25, 0.5]))
    layer.bias.data = torch.tensor([0.375, -46250.0234])  # a half, rounded to even, and no integer
    before = layer.bias_quant(layer.bias)
    small, _ = apply(layer, cut([0, 2, 4], [0, 1], added_bias=(0.25, 7.5)))
    assert torch.equal(small.bias_quant(small.bias), before + torch.tensor([0.25, 7.5]))


@pytest.mark.parametrize(("step", "inputs"), [(2**-20, len(KEEP)), (2**-30, SIX)], ids=["room", "no room"])
def test_constants_stay_where_a_bias_on_its_grid_has_no_room_for_them(step, inputs):
    after = CompressedConv2d(SIX, 4, 1)
    after.add_quant("weight", 8)
    after.bias_quant = BiasQuant(4, levels=255)
    net = sandwich(nn.Sigmoid(), after=after)
    net.after.bias.data.zero_()
    net.after.bias_quant.settle(torch.full((4,), step))
    small = shrunk(net, X)
    assert small.after.in_channels == inputs


def test_almost_everything_dropped():
    wide = 40
    layers = [
        conv(3, wide, 3, padding=1),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        conv(wide, wide, 3, padding=1, groups=wide),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        conv(wide, wide),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wide, 5),
    ]
    net = lively(nn.Sequential(*layers))
    for index, kept in ((0, (7, 31)), (3, (7,)), (6, (2, 39))):
        masked(net[index], kept)
    small = shrunk(net, X)
    assert small[6].out_channels == 2
    assert small[9].in_features == 2


def test_residual_stream_scatters_and_gathers():
    run = lambda n, x: n.head((y := n.stem(x)) + n.b(n.a(y)))  # noqa: E731
    net = Net(
        run,
        stem=conv(3, SIX),
        a=masked(conv(SIX, 5), (1, 2), "input"),
        b=masked(conv(5, SIX), (2, 5)),
        head=masked(conv(SIX, 4), (0, 2, 5), "input"),
    )
    small = shrunk(net, X)
    assert (small.a.in_channels, small.b.out_channels, small.head.in_channels) == (2, 2, 3)
    assert small.stem.out_channels == 4  # 1 for a, 0 2 5 for the head


def test_a_layer_without_tensors_gathers_where_its_network_is():
    net = nn.Sequential(conv(3, 3).to("meta", torch.float64), nn.ReLU()).eval()
    apply_cuts(net, {"1": Cut(((0, 1),), (0, 1), (((2, 0.0), (-1, 4.0)),), ((1, 0.0), (0, 0.0)))})
    aligns = [net[1].arguments[0], net[1].result]
    assert all(buffer.is_meta for align in aligns for buffer in align.buffers())
    assert [align.constants.dtype for align in aligns] == [torch.float64] * 2
    assert not any(module.training for module in net[1].modules())
