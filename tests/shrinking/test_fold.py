"""Normalizations that become part of a convolution, and why others do not."""

import copy

import pytest
import torch
from masked_nets import Net, assert_same, conv, hosted, lively, masked, outputs, shrunk
from torch import nn

from qprune.errors import ShrinkError
from qprune.flow import trace
from qprune.layers import CompressedConv2d, PrunedQuantConv2d, PrunedQuantConvTranspose2d, QuantConv2d
from qprune.shrinking import Fold, fold_norms, shrink_with_facts
from qprune.shrinking.fold import find_folds

X = torch.randn(2, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def folded(net, x=X, tolerance=1e-5):
    """The folded network, what was folded and why not, after comparing outputs."""
    net.eval()
    small = copy.deepcopy(net)
    folds, reasons = fold_norms(small, trace(small, x))
    assert_same(outputs(net, x), outputs(small, x), tolerance)
    return small, folds, reasons


def turned(norm):
    """Half of the scales negative, one of them zero."""
    lively(norm)
    with torch.no_grad():
        norm.weight[::2] *= -1
        norm.weight[1] = 0
    return norm


# into the convolution before


@pytest.mark.parametrize(
    "layer",
    [
        conv(3, 4, 3, padding=1),
        conv(3, 4, bias=False),
        conv(3, 6, 3, groups=3),
        conv(3, 4, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(3, 4, 3, stride=2),
        nn.ConvTranspose2d(3, 6, 2, groups=3, bias=False),
        PrunedQuantConv2d(3, 4, 3),
    ],
    ids=str,
)
def test_normalization_becomes_part_of_the_convolution_before(layer):
    layer = copy.deepcopy(layer)
    if isinstance(layer, CompressedConv2d):
        layer.weight_mask = layer.input_mask = None
    net = nn.Sequential(layer, turned(nn.BatchNorm2d(layer.out_channels)), nn.ReLU(), conv(layer.out_channels, 5))
    small, folds, reasons = folded(net)
    assert folds == [Fold("1", "0", before=False)]
    assert reasons == []
    assert type(small[1]) is nn.Identity


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4, affine=False),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ],
)
def test_any_normalization_with_running_statistics_folds(norm):
    _, folds, _ = folded(nn.Sequential(conv(3, 4), lively(copy.deepcopy(norm)), conv(4, 5, 3, padding=1)))
    assert folds == [Fold("1", "0", before=False)]


def test_folded_network_has_the_parameters_of_its_convolutions():
    small, _, _ = folded(nn.Sequential(conv(3, 4, bias=False), lively(nn.BatchNorm2d(4)), conv(4, 5)))
    assert {name for name, _ in small.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}


# into the convolution after


@pytest.mark.parametrize(
    "after", [conv(3, 4), conv(3, 6, 3, groups=3, bias=False), conv(3, 4, 3, padding=2, padding_mode="replicate")]
)
def test_normalization_becomes_part_of_the_convolution_after(after):
    small, folds, reasons = folded(nn.Sequential(turned(nn.BatchNorm2d(3)), copy.deepcopy(after)))
    assert folds == [Fold("0", "1", before=True)]
    assert reasons == []
    assert small[1].bias is not None


def test_two_normalizations_fold_into_one_convolution():
    net = nn.Sequential(lively(nn.BatchNorm2d(3)), conv(3, 4), turned(nn.BatchNorm2d(4)))
    _, folds, _ = folded(net)
    assert folds == [Fold("0", "1", before=True), Fold("2", "1", before=False)]


# reasons


def reason(net, x=X):
    small, folds, reasons = folded(net, x)
    assert folds == []
    (sentence,) = reasons
    assert any(isinstance(layer, nn.modules.batchnorm._NormBase | nn.GroupNorm) for layer in small.modules())
    return sentence


def test_zeros_at_the_borders_are_a_reason():
    assert reason(nn.Sequential(nn.BatchNorm2d(3), conv(3, 4, 3, padding=1))) == (
        "0: no convolution comes right before it; 1 after it puts zeros at the borders"
    )
    assert "puts zeros" in reason(nn.Sequential(nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 4, 3)))


def test_activation_behind_is_a_reason():
    sentence = reason(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), conv(3, 4)))
    assert sentence == "0: no convolution comes right before it; what comes after it is no convolution alone"


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)]
)
def test_statistics_of_each_image_are_a_reason(norm):
    assert reason(nn.Sequential(conv(3, 4), norm)) == "1: its statistics are those of each image"


def test_other_readers_are_a_reason():
    net = Net(lambda n, x: n.norm(y := n.conv(x)) + y, conv=conv(3, 4), norm=lively(nn.BatchNorm2d(4)))
    assert reason(net).startswith("norm: conv before it is read by others, too")


def test_output_of_the_network_is_a_reason():
    net = Net(lambda n, x: (n.norm(y := n.conv(x)), y)[0].add(0 * y), conv=conv(3, 4), norm=lively(nn.BatchNorm2d(4)))
    assert "read by others" in reason(net)


def test_second_call_is_a_reason():
    net = Net(lambda n, x: n.norm(n.norm(x)), norm=lively(nn.BatchNorm2d(3)))
    assert reason(net) == "norm: it is called several times"
    net = Net(lambda n, x: n.norm(n.conv(n.conv(x))), norm=lively(nn.BatchNorm2d(3)), conv=conv(3, 3))
    assert "read by others" in reason(net)


@pytest.mark.parametrize("tie", ["weight", "bias"])
def test_shared_parameter_is_a_reason(tie):
    net = Net(lambda n, x: n.norm(n.a(n.b(x))), a=conv(3, 3), b=conv(3, 3), norm=lively(nn.BatchNorm2d(3)))
    setattr(net.b, tie, getattr(net.a, tie))
    assert "a before it shares its weights, masks them, or has a hook" in reason(net)
    net = Net(lambda n, x: n.a(n.norm(n.b(x).relu())), a=conv(3, 3), b=conv(3, 3), norm=lively(nn.BatchNorm2d(3)))
    setattr(net.b, tie, getattr(net.a, tie))
    assert "a after it shares its weights" in reason(net)


def test_hook_is_a_reason():
    net = nn.Sequential(conv(3, 4), lively(nn.BatchNorm2d(4)))
    net[0].register_forward_hook(lambda layer, arguments, result: result + 1)
    assert "has a hook" in reason(net)
    net = nn.Sequential(conv(3, 4), lively(nn.BatchNorm2d(4)))
    net[1].register_forward_pre_hook(lambda layer, arguments: (arguments[0] + 1,))
    assert "has a hook" in reason(net)


@pytest.mark.parametrize("side", ["output", "weight"])
def test_mask_in_between_is_a_reason(side):
    net = nn.Sequential(masked(conv(3, 4), (0, 2), side), lively(nn.BatchNorm2d(4)))
    assert "mask" in reason(net)


def test_mask_behind_the_normalization_is_a_reason():
    assert reason(nn.Sequential(conv(3, 4), masked(lively(nn.BatchNorm2d(4)), (0, 2)))).startswith("1: it has a mask")


def test_class_of_the_users_own_is_a_reason():
    kind = type("Mine", (nn.Conv2d,), {"_conv_forward": lambda self, *a: 2 * nn.Conv2d._conv_forward(self, *a)})
    assert "no convolution" in reason(nn.Sequential(kind(3, 4, 1), lively(nn.BatchNorm2d(4))))


def test_linear_layer_over_positions_is_a_reason():
    assert "no convolution" in reason(nn.Sequential(lively(nn.BatchNorm2d(3)), nn.Linear(10, 3)))
    assert "no convolution" in reason(nn.Sequential(nn.Linear(10, 8), lively(nn.BatchNorm2d(3))))


def test_quantized_weights_after_it_are_a_reason():
    layer = QuantConv2d(3, 4, 1)
    layer.input_quant = None
    layer.weight_quant.calibrate(layer.weight)
    assert "quantized weights of 1 after it would change" in reason(nn.Sequential(lively(nn.BatchNorm2d(3)), layer))
    assert "quantizer" in reason(nn.Sequential(lively(nn.BatchNorm2d(3)), QuantConv2d(3, 4, 1)))


# quantized weights


@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", [PrunedQuantConv2d, PrunedQuantConvTranspose2d])
def test_integers_stay_up_to_their_sign(kind, bits, per):
    layer = kind(4, 6, 3, weight_bits=bits, groups=2)
    layer.input_mask = layer.input_quant = layer.weight_quant = None
    layer.add_quant("weight", bits, per=per).calibrate(layer.rows(layer.weight))
    norm = lively(nn.BatchNorm2d(6))
    with torch.no_grad():
        norm.weight[[0, 3]] *= -1
    x = torch.randn(2, 4, 8, 10)
    small, folds, _ = folded(nn.Sequential(layer, norm), x)
    assert len(folds) == 1
    before, after = (each.rows(each.int_weight()[0]) for each in (layer, small[0]))
    signs = norm.weight.sign().to(torch.int8).view(-1, 1, 1, 1)
    assert torch.equal(after, before * signs)


def test_inactive_quantizer_starts_with_the_scaled_range():
    layer = QuantConv2d(3, 4, 1)
    layer.input_quant = None
    norm = lively(nn.BatchNorm2d(4))
    small, _, _ = folded(nn.Sequential(layer, norm))
    assert not small[0].weight_quant.active
    layer.weight_quant.calibrate(layer.weight)
    small[0].weight_quant.calibrate(small[0].weight)
    assert torch.equal(layer.int_weight()[0], small[0].int_weight()[0])


def test_negative_scale_with_the_published_grid_is_a_reason():
    layer = conv(3, 4)
    hosted(layer).add_quant("weight", 4, per="channel", numerics="paper").calibrate(layer.weight)
    with torch.no_grad():
        layer.weight *= -1  # -8 is used, and 8 does not exist
    norm = lively(nn.BatchNorm2d(4))
    assert folded(nn.Sequential(copy.deepcopy(layer), norm))[1]
    with torch.no_grad():
        norm.weight[2] = -1
    assert "integer weights of 0 before it would change" in reason(nn.Sequential(layer, norm))


def test_quantizer_behind_the_normalization_moves_to_the_convolution():
    norm = hosted(lively(nn.BatchNorm2d(4)))
    norm.add_quant("output", 4, per="channel").calibrate(torch.randn(2, 4, 8, 10) * 3)
    small, folds, _ = folded(nn.Sequential(conv(3, 4), norm, nn.ReLU(), conv(4, 5)), tolerance=1e-1)
    assert len(folds) == 1
    quant = small[0].output_quant
    assert torch.equal(quant.scale, norm.output_quant.scale)
    assert torch.equal(quant.zero_point, norm.output_quant.zero_point)


# as part of shrinking


def test_shrinking_folds_what_is_left():
    net = nn.Sequential(masked(conv(3, 6), (0, 2, 5)), lively(nn.BatchNorm2d(6)), nn.ReLU(), conv(6, 4, 3))
    found = shrink_with_facts(net.eval(), X, fold=True)
    assert found.folds == (Fold("1", "0", before=False),)
    assert found.net[0].out_channels == 3
    assert_same(outputs(net, X), outputs(found.net, X))
    shrunk(found.net, X, fold=True)


def test_scatter_between_stays_behind_the_fold():
    run = lambda n, x: n.after(torch.cumsum(n.norm(n.conv(x)), 1))  # noqa: E731
    net = Net(run, conv=conv(3, 6), norm=masked(lively(nn.BatchNorm2d(6)), (0, 2, 5)), after=conv(6, 4))
    small = shrunk(net, X, fold=True)
    assert small.conv.out_channels == 3
    assert isinstance(small.norm, nn.Identity)


def test_plan_is_made_without_touching_the_network():
    net = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4))
    before = copy.deepcopy(net.state_dict())
    find_folds(trace(net, X))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_network_that_cannot_be_followed_says_so():
    with pytest.raises(ShrinkError, match="could not be followed on an example of shape"):
        shrink_with_facts(nn.Sequential(conv(5, 4)), X, fold=True)
