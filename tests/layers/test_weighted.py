import pytest
import torch
from torch import nn

from qprune.layers import (
    PrunedConv2d,
    PrunedConvTranspose2d,
    PrunedLinear,
    PrunedQuantConv2d,
    PrunedQuantConvTranspose2d,
    PrunedQuantLinear,
    QuantConv2d,
    QuantConvTranspose2d,
    QuantLinear,
)
from qprune.schedules import QuantizeFrom, Stepwise

PRUNED = [(PrunedConv2d, (6, 4, 3)), (PrunedConvTranspose2d, (6, 4, 3)), (PrunedLinear, (6, 4))]
QUANT = [(QuantConv2d, (6, 4, 3)), (QuantConvTranspose2d, (6, 4, 3)), (QuantLinear, (6, 4))]
JOINT = [(PrunedQuantConv2d, (6, 4, 3)), (PrunedQuantConvTranspose2d, (6, 4, 3)), (PrunedQuantLinear, (6, 4))]
ALL = PRUNED + QUANT + JOINT
SCHEDULE = Stepwise(sparsity=0.75, start=5, every=2)


@pytest.mark.parametrize(("cls", "args"), ALL)
def test_layer_uses_the_random_numbers_of_the_dense_one(cls, args):
    dense_cls = next(base for base in cls.__mro__ if base in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    torch.manual_seed(5)
    dense, after_dense = dense_cls(*args), torch.rand(3)
    torch.manual_seed(5)
    layer, after_layer = cls(*args), torch.rand(3)
    assert torch.equal(layer.weight, dense.weight)
    assert torch.equal(layer.bias, dense.bias)
    assert torch.equal(after_layer, after_dense)


@pytest.mark.parametrize(("cls", "args"), PRUNED + JOINT)
@pytest.mark.parametrize(("at", "channels"), [("input", 6), ("weight", 4), ("output", 4)])
def test_mask_sits_at_the_asked_side_with_its_channels(cls, args, at, channels):
    layer = cls(*args, at=at, multiple_of=2)
    masks = {side: layer.slot(side, "mask") for side in layer.sides}
    assert [side for side, mask in masks.items() if mask is not None] == [at]
    assert masks[at].channels == channels
    assert masks[at].multiple_of == 2
    assert masks[at].importance == ("weight-l1" if at == "weight" else "activation-l1")


@pytest.mark.parametrize(("cls", "args"), PRUNED)
def test_schedule_is_kept_by_the_mask(cls, args):
    assert cls(*args, schedule=SCHEDULE).input_mask.schedule == SCHEDULE


@pytest.mark.parametrize(("cls", "args"), QUANT)
def test_quantizers_have_the_asked_bits_and_granularity(cls, args):
    layer = cls(*args, weight_bits=4, act_bits=3, schedule=QuantizeFrom(7), gradient="clipped", numerics="paper")
    assert (layer.weight_quant.bits, layer.input_quant.bits) == (4, 3)
    assert (layer.weight_quant.channels, layer.input_quant.channels) == (4, None)
    assert (layer.weight_quant.symmetric, layer.input_quant.symmetric) == (True, False)
    for quant in (layer.weight_quant, layer.input_quant):
        assert (quant.schedule, quant.gradient, quant.numerics) == (QuantizeFrom(7), "clipped", "paper")
    assert cls(*args, per="tensor").weight_quant.channels is None


@pytest.mark.parametrize(("cls", "args"), QUANT)
def test_none_leaves_weight_or_activations_alone(cls, args):
    assert cls(*args, weight_bits=None).weight_quant is None
    assert cls(*args, act_bits=None).input_quant is None


@pytest.mark.parametrize(("cls", "args"), JOINT)
def test_joint_layer_takes_a_schedule_for_each(cls, args):
    layer = cls(*args, prune_schedule=SCHEDULE, quant_schedule=QuantizeFrom(7), at="input", act_at="output")
    assert layer.input_mask.schedule == SCHEDULE
    assert layer.weight_quant.schedule == layer.output_quant.schedule == QuantizeFrom(7)
    assert layer.input_quant is None


def test_arguments_of_the_dense_layer_come_first_and_in_order():
    layer = PrunedConv2d(6, 4, 3, 2, 1, 1, 2, False, "reflect", None, torch.float64)
    dense = nn.Conv2d(6, 4, 3, 2, 1, 1, 2, False, "reflect", None, torch.float64)
    assert repr(layer) == f"Pruned{repr(dense)[:-1]}, input_mask=6/6)"
    assert layer.weight.dtype == torch.float64


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        PrunedLinear(6, 4, True, None, None, SCHEDULE)


@pytest.mark.parametrize(("cls", "args"), PRUNED + JOINT)
def test_importance_must_fit_its_side(cls, args):
    with pytest.raises(
        ValueError, match=r"^importance at the weight must be one of weight-l1, random; received 'activation-l1'$"
    ):
        cls(*args, at="weight", importance="activation-l1")
    fits = {
        "input": "activation-l1, activation-l0, taylor, random",
        "output": "activation-l1, activation-l0, taylor, bn-scale, random",
    }
    for at, fitting in fits.items():
        with pytest.raises(
            ValueError, match=f"^importance at the {at} must be one of {fitting}; received 'weight-l1'$"
        ):
            cls(*args, at=at, importance="weight-l1")


@pytest.mark.parametrize(("cls", "args"), QUANT + JOINT)
def test_layer_that_would_quantize_nothing_is_refused(cls, args):
    with pytest.raises(ValueError, match=r"^weight_bits and act_bits are both None: nothing would be quantized$"):
        cls(*args, weight_bits=None, act_bits=None)


def test_activations_at_the_weight_are_refused():
    with pytest.raises(ValueError, match=r'^activations are quantized at "input" or "output"; received "weight"$'):
        QuantConv2d(6, 4, 3, at="weight")
    with pytest.raises(ValueError, match=r'^activations are quantized at "input" or "output"; received "weight"$'):
        PrunedQuantConv2d(6, 4, 3, act_at="weight")


def test_side_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^PrunedConv2d has sites at input, weight, output; received 'bias'$"):
        PrunedConv2d(6, 4, 3, at="bias")
    with pytest.raises(ValueError, match=r"^QuantConv2d has sites at input, weight, output; received 'bias'$"):
        QuantConv2d(6, 4, 3, at="bias")


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_outside_2_to_8_are_refused(bits):
    for name in ("weight_bits", "act_bits"):
        with pytest.raises(ValueError, match=f"^bits must be 2 to 8; received {bits}$"):
            QuantConv2d(6, 4, 3, **{name: bits})


@pytest.mark.parametrize(("cls", "args"), ALL)
def test_optimizer_sees_the_dense_parameters_alone(cls, args):
    assert [name for name, _ in cls(*args).named_parameters()] == ["weight", "bias"]
