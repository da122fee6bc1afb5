"""What is measured in the backward pass, beside torch's own gradients of the same net written out by hand."""

import copy
from pathlib import Path

import forked
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from qprune.errors import PlanError
from qprune.layers import ChannelMask, CompressedReLU, PrunedConv2d, PrunedLinear, PrunedQuantConv2d
from qprune.schedules import OneShot, QuantizeFrom
from qprune.training import ScheduleDriver
from qprune.training.update import check_precision

TAYLOR = {"importance": "taylor", "schedule": OneShot(0.5, at=1)}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def measuring(*layers):
    net = nn.Sequential(*layers).train()
    for mask in masks(net):
        mask.measuring = True
    return net


def masks(net):
    return [module for module in net.modules() if isinstance(module, ChannelMask)]


def scores(net):
    for mask in masks(net):
        mask.commit()
    return [mask.score for mask in masks(net)]


def by_hand(values, loss):
    (gradient,) = torch.autograd.grad(loss, values)
    return (values.detach() * gradient).square().mean((0, 2, 3))


def test_the_score_is_the_mean_of_activation_times_gradient_squared():
    rectifier = CompressedReLU()
    rectifier.add_mask("output", channels=4, importance="taylor")
    net = measuring(nn.Conv2d(3, 4, 3), rectifier, PrunedConv2d(4, 2, 3, importance="taylor"))
    x = torch.randn(2, 3, 7, 9)
    net(x).pow(3).mean().backward()

    values = net[0](x).relu().detach().requires_grad_()
    expected = by_hand(values, nn.functional.conv2d(values, net[2].weight, net[2].bias).pow(3).mean())
    for score in scores(net):
        torch.testing.assert_close(score, expected)


def test_a_dropped_channel_is_ranked_by_what_its_return_would_change():
    net = measuring(nn.Conv2d(3, 4, 3), PrunedConv2d(4, 2, 3, importance="taylor"))
    net[1].input_mask.keep[1] = False
    x = torch.randn(2, 3, 7, 9)
    net(x).square().mean().backward()

    values = net[0](x).detach()
    masked = (values * net[1].input_mask.keep.view(-1, 1, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.conv2d(masked, net[1].weight, net[1].bias).square().mean(), masked)
    (score,) = scores(net)
    torch.testing.assert_close(score, (values * gradient).square().mean((0, 2, 3)))
    assert score[1] > 0


def test_several_backwards_of_a_step_are_parts_of_one_batch():
    net = measuring(nn.Conv2d(3, 4, 3), PrunedConv2d(4, 2, 3, importance="taylor"))
    whole, x = copy.deepcopy(net), torch.randn(5, 3, 7, 9)
    whole(x).square().mean().backward()
    for part in x.tensor_split(2):
        (net(part).square().mean() * len(part) / 5).backward()
    assert masks(net)[0].pending_count == masks(whole)[0].pending_count == 5 * 5 * 7
    torch.testing.assert_close(*scores(net), *scores(whole))


def test_each_use_of_a_layer_in_one_forward_counts():
    net = measuring(PrunedConv2d(3, 3, 3, padding=1, importance="taylor"))
    net(net(torch.randn(2, 3, 7, 9))).square().mean().backward()
    assert masks(net)[0].pending_count == 2 * (2 * 7 * 9)


def test_a_forward_without_a_backward_measures_nothing():
    net = measuring(nn.Conv2d(3, 4, 3), PrunedConv2d(4, 2, 3, importance="taylor"))
    net(torch.randn(2, 3, 7, 9))
    with torch.no_grad():
        net(torch.randn(2, 3, 7, 9))
    assert masks(net)[0].pending_count == 0


def test_a_backward_that_comes_when_nobody_measures_any_more_adds_nothing():
    net = measuring(nn.Conv2d(3, 4, 3), PrunedConv2d(4, 2, 3, importance="taylor"))
    loss = net(torch.randn(2, 3, 7, 9)).square().mean()
    masks(net)[0].measuring = False
    loss.backward()
    assert masks(net)[0].pending_count == 0


def test_channels_of_the_image_are_ranked_though_nobody_else_wants_its_gradient():
    net, x = measuring(PrunedConv2d(3, 2, 3, importance="taylor")), torch.randn(2, 3, 7, 9)
    net(x).square().mean().backward()
    values = x.clone().requires_grad_()
    expected = by_hand(values, nn.functional.conv2d(values, net[0].weight, net[0].bias).square().mean())
    torch.testing.assert_close(*scores(net), expected)
    assert x.grad is None
    assert not x.requires_grad


def test_features_behind_frozen_layers_are_ranked_and_may_be_overwritten():
    net = measuring(PrunedConv2d(3, 4, 3, at="output", importance="taylor"), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    net[0].requires_grad_(False)
    x = torch.randn(2, 3, 7, 9)
    net(x).square().mean().backward()
    values = nn.functional.conv2d(x, net[0].weight, net[0].bias).requires_grad_()
    expected = by_hand(values, nn.functional.conv2d(values.relu(), net[2].weight, net[2].bias).square().mean())
    torch.testing.assert_close(*scores(net), expected)


@pytest.mark.parametrize("gradient", ["straight", "clipped"])
def test_a_quantizer_behind_the_mask_changes_the_gradient_and_not_the_values(gradient):
    layer = PrunedQuantConv2d(
        3, 2, 3, importance="taylor", act_bits=3, weight_bits=None, gradient=gradient, quant_schedule=QuantizeFrom(0)
    )
    net, x = measuring(layer), torch.randn(2, 3, 7, 9)
    layer.input_quant.calibrate(x / 2)
    net(x).square().mean().backward()
    quantized = layer.input_quant.eval()(x.clone())
    inside = (quantized - x).abs() < 0.51 * layer.input_quant.scale
    values = quantized.detach().requires_grad_()
    loss = nn.functional.conv2d(values, layer.weight, layer.bias).square().mean()
    (behind,) = torch.autograd.grad(loss, values)
    passed = behind if gradient == "straight" else behind * inside
    torch.testing.assert_close(*scores(net), (x * passed).square().mean((0, 2, 3)))


def test_features_of_a_linear_layer_are_ranked():
    net, x = measuring(PrunedLinear(6, 4, importance="taylor")), torch.randn(5, 7, 6)
    net(x).square().mean().backward()
    values = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.linear(values, net[0].weight, net[0].bias).square().mean(), values)
    torch.testing.assert_close(*scores(net), (x * gradient).square().mean((0, 1)))


def test_it_is_measured_in_a_gradient_of_torch_func_too():
    net = measuring(nn.Conv2d(3, 4, 3), PrunedConv2d(4, 2, 3, importance="taylor"))
    twin, x = copy.deepcopy(net), torch.randn(2, 3, 7, 9)
    twin(x).square().mean().backward()
    grad(lambda parameters: functional_call(net, parameters, (x,)).square().mean())(dict(net.named_parameters()))
    torch.testing.assert_close(*scores(net), *scores(twin))


def test_a_mask_that_no_backward_reached_is_told():
    net = nn.Sequential(PrunedConv2d(3, 4, 3, at="output", **TAYLOR))
    driver = ScheduleDriver(net)
    with torch.no_grad():
        net(torch.randn(2, 3, 7, 9))
    with pytest.raises(PlanError, match=r"^0\.output is due at step 1, but no training backward has reached it yet\.$"):
        driver.step()


def test_choosing_at_step_0_is_refused():
    net = nn.Sequential(PrunedConv2d(3, 4, 3, importance="taylor", schedule=OneShot(0.5, at=0)))
    with pytest.raises(PlanError, match=r"0\.input: its mask is chosen at step 0, before anything was measured"):
        ScheduleDriver(net)


def test_losses_that_are_scaled_are_refused():
    net = nn.Sequential(PrunedConv2d(3, 4, 3, **TAYLOR))
    for precision in ("float32", "bfloat16"):
        check_precision(net, precision)
    with pytest.raises(PlanError) as error:
        check_precision(net, "float16")
    assert str(error.value) == (
        '0.input ranks channels by gradients (importance = "taylor"), and float16 scales them by another factor from '
        'time to time: use precision = "bfloat16" or "float32", or another importance.'
    )


def test_two_processes_measure_what_one_does(tmp_path):
    script = Path(__file__).with_name("in_processes.py")
    for size, name in ((1, "one"), (2, "two")):
        for process in forked.together(size, script, tmp_path / name):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    one, two = (torch.load(tmp_path / name / "short/model.pt", weights_only=True)["state"] for name in ("one", "two"))
    for path in ("1.output_mask", "3.output_mask"):
        torch.testing.assert_close(two[f"{path}.score"], one[f"{path}.score"], rtol=1e-3, atol=0)
        assert torch.equal(two[f"{path}.keep"], one[f"{path}.keep"])
