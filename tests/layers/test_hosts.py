import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qprune.importances import WeightL1
from qprune.layers import (
    HOSTS,
    ChannelMask,
    CompressedAdd,
    CompressedBatchNorm2d,
    CompressedConcat,
    CompressedConv2d,
    CompressedConvTranspose2d,
    CompressedLinear,
    CompressedReLU,
    CompressedReLU6,
    sites,
)

WEIGHTED = {
    "conv": (CompressedConv2d, (6, 4, 3), {}),
    "grouped_conv": (CompressedConv2d, (6, 4, 3), {"groups": 2}),
    "depthwise_conv": (CompressedConv2d, (6, 6, 3), {"groups": 6}),
    "depthwise_conv_multiplied": (CompressedConv2d, (4, 8, 3), {"groups": 4}),
    "transposed": (CompressedConvTranspose2d, (6, 4, 3), {}),
    "grouped_transposed": (CompressedConvTranspose2d, (6, 4, 3), {"groups": 2}),
    "depthwise_transposed": (CompressedConvTranspose2d, (6, 6, 3), {"groups": 6}),
    "linear": (CompressedLinear, (6, 4), {}),
}
weighted = pytest.mark.parametrize("form", WEIGHTED)


def make(form):
    cls, args, kwargs = WEIGHTED[form]
    layer = cls(*args, **kwargs)
    x = torch.randn(2, args[0]) if cls is CompressedLinear else torch.randn(2, args[0], 7, 9)
    return layer, x


def half(mask):
    mask.score.copy_(torch.randperm(mask.channels))
    mask.refresh(0.5)
    return mask.keep


# ---- entries of dropped channels


@weighted
@pytest.mark.parametrize("sides", [("input",), ("weight",), ("output",), ("input", "weight", "output")], ids="+".join)
@pytest.mark.parametrize("quantized", [False, True])
def test_gradients_of_dropped_entries_are_exactly_zero(form, sides, quantized):
    layer, x = make(form)
    for side in sides:
        half(layer.add_mask(side))
    for side in layer.sides if quantized else ():
        layer.add_quant(side, 4).calibrate(torch.randn(99))
    layer(x).square().sum().backward()
    covered = {parameter for parameter, _ in layer.kept_entries()}
    assert layer.weight in covered
    assert (layer.bias in covered) == (sides != ("input",))
    for parameter, keep in layer.kept_entries():
        keep = keep.expand_as(parameter)
        assert not keep.all()
        assert (parameter.grad[~keep] == 0).all()


@weighted
@pytest.mark.parametrize("side", ["input", "weight", "output"])
def test_dropped_entries_are_all_that_have_no_gradient(form, side):
    layer, x = make(form)
    half(layer.add_mask(side))
    layer(x).square().sum().backward()
    for parameter, keep in layer.kept_entries():
        assert torch.equal(parameter.grad != 0, keep.expand_as(parameter))


@weighted
@pytest.mark.parametrize("side", ["input", "weight", "output"])
def test_zeroing_dropped_entries_changes_no_output(form, side):
    layer, x = make(form)
    half(layer.add_mask(side))
    before = layer(x)
    with torch.no_grad():
        for parameter, keep in layer.kept_entries():
            parameter.copy_(torch.where(keep, parameter, 0))
    torch.testing.assert_close(layer(x), before)


def test_masks_that_do_not_count_leave_entries_alone():
    layer, _ = make("conv")
    counted, other = layer.add_mask("input"), layer.add_mask("output")
    half(counted)
    half(other)
    (entry,) = layer.kept_entries({counted})
    assert entry[0] is layer.weight
    assert torch.equal(entry[1], counted.keep.view(1, -1, 1, 1).expand_as(layer.weight))
    assert all(keep.all() for _, keep in layer.kept_entries(set()))


def test_normalization_entries_are_those_of_its_output_mask():
    norm = CompressedBatchNorm2d(4)
    assert list(norm.kept_entries()) == []
    keep = half(norm.add_mask("output"))
    assert [parameter for parameter, _ in norm.kept_entries()] == [norm.weight, norm.bias]
    assert all(kept is keep for _, kept in norm.kept_entries())
    norm(torch.randn(2, 4, 5, 7)).square().sum().backward()
    assert all((parameter.grad[~kept] == 0).all() for parameter, kept in norm.kept_entries())
    assert list(norm.kept_entries(set())) == []


# ---- what a masked and quantized layer computes, against torch


@weighted
@pytest.mark.parametrize("quantized", [False, True])
def test_layer_is_torch_on_compressed_input_and_weight(form, quantized):
    (layer, x), (cls, args, kwargs) = make(form), WEIGHTED[form]
    keep_in, keep_weight, keep_out = (half(layer.add_mask(side)) for side in layer.sides)
    rows = layer.rows(layer.weight.detach())
    if quantized:
        quant = layer.add_quant("weight", 4, per="channel").calibrate(rows)
        rows = torch.fake_quantize_per_channel_affine(rows, quant.scale, quant.zero_point, 0, -7, 7)
    dense = next(dense for dense, host in HOSTS.items() if host is cls)(*args, **kwargs)
    with torch.no_grad():
        dense.weight.copy_(layer.rows(rows * keep_weight.view(-1, *[1] * (rows.dim() - 1))))
        dense.bias.copy_(layer.bias * keep_weight)
    ones = [1] * (x.dim() - 2)
    expected = dense(x * keep_in.view(-1, *ones)) * keep_out.view(-1, *ones)
    torch.testing.assert_close(layer(x), expected)


@weighted
def test_rows_are_their_own_inverse_with_output_channels_first(form):
    layer, _ = make(form)
    rows = layer.rows(layer.weight)
    assert rows.shape[0] == layer.channels_at("output")
    assert rows.shape[1] == layer.channels_at("input") // getattr(layer, "groups", 1)
    assert torch.equal(layer.rows(rows), layer.weight)


@weighted
def test_weight_score_is_the_mean_magnitude_that_reaches_each_output_channel(form):
    layer, x = make(form)
    # with a constant input of ones and padding away, a channel's sum of |weights| can be read from the output
    with torch.no_grad():
        layer.weight.abs_()
        layer.bias.zero_()
        y = layer(torch.ones(1, x.shape[1], 9, 9) if x.dim() == 4 else torch.ones(1, x.shape[1]))
    reached = y.flatten(2).amax(2)[0] if y.dim() == 4 else y[0]
    layer.add_mask("weight", importance="weight-l1")
    (site,) = sites(layer)
    torch.testing.assert_close(WeightL1().score(site, seed=0), reached / layer.rows(layer.weight)[0].numel())


# ---- integer weights


@weighted
@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize(
    "options", [{}, {"numerics": "paper"}, {"symmetric": False}], ids=["default", "paper", "asymmetric"]
)
@pytest.mark.parametrize("masked", [False, True])
def test_integer_weight_times_scale_is_the_weight_that_forward_uses(form, per, options, masked):
    layer, _ = make(form)
    if masked:
        half(layer.add_mask("weight"))
    layer.add_quant("weight", 8 if per == "tensor" else 4, per=per, **options).calibrate(layer.rows(layer.weight))
    integers, scale = layer.eval().int_weight()
    used, _ = layer._weight_and_bias()
    assert integers.shape == scale.shape == layer.weight.shape
    assert integers.dtype == (torch.int16 if "symmetric" in options else torch.int8)
    assert torch.equal(integers * scale, used)


def test_integer_weight_of_a_bfloat16_layer_is_exact_after_the_cast():
    layer = CompressedConv2d(6, 4, 3, dtype=torch.bfloat16)
    layer.add_quant("weight", 4, per="channel").calibrate(layer.weight)
    integers, scale = layer.int_weight()
    assert torch.equal((integers * scale).bfloat16(), layer._weight_and_bias()[0])


def test_integer_weight_without_an_active_quantizer_is_refused():
    layer = CompressedConv2d(6, 4, 3)
    sentence = "^CompressedConv2d has no active weight quantizer: train past its start, or calibrate it$"
    with pytest.raises(ValueError, match=sentence):
        layer.int_weight()
    layer.add_quant("weight", 4)
    with pytest.raises(ValueError, match=sentence):
        layer.int_weight()


# ---- slots


def test_filled_slots_print_and_empty_ones_do_not():
    layer = CompressedConv2d(6, 4, 3)
    assert repr(layer) == "CompressedConv2d(6, 4, kernel_size=(3, 3), stride=(1, 1))"
    half(layer.add_mask("input"))
    layer.add_quant("output", 4)
    assert repr(layer).endswith("stride=(1, 1), input_mask=3/6, output_quant=4bit(off))")
    layer.output_quant.calibrate(torch.randn(9))
    assert repr(layer).endswith("output_quant=4bit)")


def test_layer_on_the_meta_device_prints():
    layer = CompressedConv2d(6, 4, 3, device="meta")
    layer.add_mask("input")
    layer.add_quant("weight", 4)
    assert repr(layer).endswith("input_mask=?/6, weight_quant=4bit)")


def test_compressors_follow_the_mode_of_their_host():
    layer = CompressedConv2d(6, 4, 3).eval()
    parts = [layer.add_mask("input"), layer.add_quant("input", 4)]
    assert not any(part.training for part in parts)
    for part in parts:
        part.measuring = True
    layer(torch.randn(2, 6, 5, 7))
    for part in parts:
        part.commit()
        assert part.seen == 0


def test_compressors_live_where_the_weight_does():
    layer = CompressedConv2d(6, 4, 3, device="meta")
    buffers = [*layer.add_mask("input").buffers(), *layer.add_quant("weight", 4).buffers()]
    assert all(buffer.is_meta for buffer in buffers)


def test_weight_is_quantized_symmetrically_unless_told_otherwise():
    layer = CompressedConv2d(6, 4, 3)
    assert layer.add_quant("weight", 4).symmetric
    assert not layer.add_quant("input", 4).symmetric
    assert CompressedConv2d(6, 4, 3).add_quant("input", 4, symmetric=True).symmetric


def test_taken_slot_is_refused():
    layer = CompressedConv2d(6, 4, 3)
    layer.add_mask("input")
    layer.add_quant("weight", 4)
    with pytest.raises(ValueError, match=r"^CompressedConv2d already has a mask at its input$"):
        layer.add_mask("input")
    with pytest.raises(ValueError, match=r"^CompressedConv2d already has a quant at its weight$"):
        layer.add_quant("weight", 8)


def test_side_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^CompressedReLU has sites at output; received 'input'$"):
        CompressedReLU().add_mask("input", channels=4)
    with pytest.raises(ValueError, match=r"^CompressedConv2d has sites at input, weight, output; received 'bias'$"):
        CompressedConv2d(6, 4, 3).add_quant("bias", 4)


def test_channels_must_be_given_where_the_layer_does_not_know_them():
    with pytest.raises(ValueError, match=r"^CompressedReLU does not know its channels: pass channels=$"):
        CompressedReLU().add_mask("output")
    with pytest.raises(ValueError, match=r"^CompressedReLU does not know its channels: pass channels=$"):
        CompressedReLU().add_quant("output", 4, per="channel")
    assert CompressedReLU().add_quant("output", 4).channels is None


def test_unknown_granularity_is_refused():
    with pytest.raises(ValueError, match=r"^per must be \"tensor\" or \"channel\"; received 'row'$"):
        CompressedConv2d(6, 4, 3).add_quant("weight", 4, per="row")


def test_refused_compressor_leaves_the_slot_empty():
    layer = CompressedConv2d(6, 4, 3)
    with pytest.raises(ValueError, match="bits"):
        layer.add_quant("weight", 9)
    assert layer.weight_quant is None


# ---- shapes beside (N, C, H, W)


@pytest.mark.parametrize("form", ["conv", "grouped_transposed"])
def test_image_without_a_batch_is_computed_as_in_one(form):
    layer, x = make(form)
    for side in layer.sides:
        half(layer.add_mask(side))
        quant = layer.add_quant(side, 4, per="channel")
        quant.calibrate(layer.rows(layer.weight) if side == "weight" else torch.randn(quant.channels, 9, 9))
    torch.testing.assert_close(layer(x[0]), layer(x)[0])


def test_linear_takes_any_leading_shape():
    layer, _ = make("linear")
    for side in ("input", "output"):
        half(layer.add_mask(side))
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(layer(x)[1, 3], layer(x[1, 3]))


def test_linear_measures_a_single_vector():
    layer, _ = make("linear")
    mask = layer.add_mask("input")
    mask.measuring = True
    x = torch.randn(6)
    layer(x)
    mask.commit()
    assert torch.equal(mask.score, x.abs())


def test_transposed_convolution_takes_an_output_size():
    layer = CompressedConvTranspose2d(6, 4, 3, stride=2)
    x = torch.randn(2, 6, 5, 7)
    dense = nn.ConvTranspose2d(6, 4, 3, stride=2)
    dense.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x, output_size=[12, 16]), dense(x, output_size=[12, 16]))


def test_add_and_concat_compress_what_they_return():
    a, b = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    concat = CompressedConcat()
    keep = half(concat.add_mask("output", channels=7))
    assert torch.equal(concat(a, b), torch.where(keep.view(1, -1, 1, 1), torch.cat([a, b], 1), 0))
    add = CompressedAdd()
    keep = half(add.add_mask("output", channels=3))
    assert torch.equal(add(a, a), torch.where(keep.view(1, -1, 1, 1), a + a, 0))


def test_inplace_relu_still_rectifies_before_its_mask():
    relu, x = CompressedReLU(inplace=True), torch.randn(2, 3, 5)
    keep = half(relu.add_mask("output", channels=3))
    expected = torch.where(keep.view(1, -1, 1), F.relu(x), 0)
    assert torch.equal(relu(x), expected)


# ---- sites


def test_sites_name_every_place_with_a_compressor():
    net = nn.Sequential(CompressedConv2d(3, 4, 1), nn.Sequential(CompressedBatchNorm2d(4)), nn.ReLU())
    mask = net[0].add_mask("input")
    quant = net[0].add_quant("weight", 4)
    net[1][0].add_mask("output")
    found = list(sites(net))
    assert [site.name for site in found] == ["0.input", "0.weight", "1.0.output"]
    assert found[0].mask is mask
    assert found[0].quant is None
    assert found[1].quant is quant
    assert found[2].host is net[1][0]
    assert all(f"{site.path}.{site.side}" == site.name for site in found)


def test_site_of_a_bare_host_is_its_side():
    layer = CompressedLinear(3, 4)
    layer.add_mask("output")
    assert [site.name for site in sites(layer)] == ["output"]


def test_network_without_compressors_has_no_sites():
    assert list(sites(nn.Sequential(nn.Conv2d(3, 4, 1), CompressedReLU()))) == []


def test_state_keys_are_the_dense_ones_and_the_slots():
    layer = CompressedConv2d(3, 4, 1)
    layer.add_mask("input")
    layer.add_quant("weight", 4)
    compressors = [key for key in layer.state_dict() if key not in ("weight", "bias")]
    assert compressors == [
        *(f"input_mask.{name}" for name in ("keep", "score", "seen")),
        *(f"weight_quant.{name}" for name in ("range", "scale", "zero_point", "seen", "active")),
    ]
    assert isinstance(layer.get_submodule("input_mask"), ChannelMask)


# ---- rectifiers mask while they rectify; nobody may see a difference


RECTIFIERS = [(CompressedReLU, nn.ReLU), (CompressedReLU6, nn.ReLU6)]


def made(host, *, inplace=False, masked=True, quantized=False, known=None):
    layer = host(inplace)
    if masked:
        layer.add_mask("output", channels=3).keep[1] = False
    if quantized:
        layer.add_quant("output", 4).calibrate(torch.tensor([0.0, 6.0])).told_active = known
    return layer


def run(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x * 1)
    y.backward(torch.arange(y.numel()).view_as(y).float())
    return y.detach(), x.grad


@pytest.mark.parametrize(("host", "plain"), RECTIFIERS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("known", [None, True])  # True is the driver's word, on which values are overwritten
def test_masking_at_once_equals_masking_afterwards(host, plain, masked, quantized, known):
    x = torch.randn(2, 3, 5, 7) * 4
    fused = made(host, masked=masked, quantized=quantized, known=known)
    apart = made(host, inplace=True, masked=masked, quantized=quantized)
    for a, b in zip(run(fused, x), run(apart, x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("host", "plain"), RECTIFIERS)
def test_mask_that_measures_sees_the_values_of_dropped_channels(host, plain):
    layer, x = made(host), torch.randn(2, 3, 5, 7) * 4
    layer.output_mask.measuring = True
    y = layer(x)
    layer.output_mask.commit()
    torch.testing.assert_close(layer.output_mask.score, plain()(x).mean((0, 2, 3)))
    assert (y[:, 1] == 0).all()


@pytest.mark.parametrize(("host", "plain"), RECTIFIERS)
def test_range_is_measured_behind_the_mask(host, plain):
    layer, x = made(host), torch.rand(2, 3, 5, 7)
    x[:, 1] = 5
    layer.add_quant("output", 4).measuring = True
    layer(x)
    layer.output_quant.commit()
    assert layer.output_quant.range.tolist() == [0, x[:, [0, 2]].max().item()]


@pytest.mark.parametrize(("host", "plain"), RECTIFIERS)
def test_dropped_channel_of_infinities_is_zero_and_gets_no_gradient(host, plain):
    x = torch.randn(2, 3, 5, 7)
    x[:, 1] = torch.tensor([torch.nan, torch.inf]).view(2, 1, 1)
    for a in run(made(host, quantized=True, known=True), x):
        assert (a[:, 1] == 0).all()


@pytest.mark.parametrize(("host", "plain"), RECTIFIERS)
def test_layer_that_overwrites_its_input_still_does(host, plain):
    x = torch.randn(2, 3, 5)
    expected = plain()(x)
    made(host, inplace=True)(x)
    assert torch.equal(x, expected)
