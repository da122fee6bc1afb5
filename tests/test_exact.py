import copy
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import qprune
from qprune.errors import PlanError, SpecError
from qprune.exact import make_exact, settle_biases
from qprune.layers import BiasQuant, CompressedConv2d, QuantConv2d, sites
from qprune.training import Callback

WEIGHTS = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 0}


def dense() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2),
        nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    for norm in (net[1], net[4]):
        norm.running_mean.normal_()  # type: ignore[operator,union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[operator,union-attr]
    return net.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(8, 3, 12, 8)


def test_network_in_exact_form_computes_nearly_the_same_before_it_quantizes(x: Tensor) -> None:
    own = dense()
    exact = qprune.swap(own, x, quantize=[WEIGHTS], numerics="exact")
    torch.testing.assert_close(exact(x), own(x), atol=1e-5, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in exact.modules())


def test_lone_normalization_and_pooling_become_convolutions_of_each_channel(x: Tensor) -> None:
    net = qprune.swap(dense(), x, quantize=[WEIGHTS], numerics="exact")
    for index, kernel in ((3, (2, 2)), (4, (1, 1)), (7, (4, 2))):
        conv = net[index]  # type: ignore[index]
        assert isinstance(conv, CompressedConv2d)
        assert (conv.groups, conv.kernel_size) == (conv.in_channels, kernel)
        assert conv.weight_quant is not None
        assert conv.weight_quant.bits == 8
    assert isinstance(net[1], nn.Identity)  # type: ignore[index]


def test_weights_of_pooling_do_not_train(x: Tensor) -> None:
    net = qprune.swap(dense(), x, quantize=[WEIGHTS], numerics="exact")
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["3.weight", "7.weight"]


def test_scales_stay_once_a_quantizer_is_active(x: Tensor) -> None:
    net = qprune.calibrate(qprune.swap(dense(), x, quantize=[WEIGHTS], numerics="exact"), [x])
    before = [(site.quant.scale.clone(), site.quant.zero_point.clone()) for site in sites(net) if site.quant]
    for site in sites(net):
        assert site.quant is not None
        site.quant.train().measuring = True
        site.quant(100 * torch.randn(site.quant.scale.numel(), 7))
        site.quant.commit()
    after = [(site.quant.scale, site.quant.zero_point) for site in sites(net) if site.quant]
    assert all(torch.equal(a, b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))


def test_driver_gives_biases_their_grid_when_input_and_weight_have_theirs(x: Tensor) -> None:
    rule = {**WEIGHTS, "start": 2, "schedule": {"kind": "quantize-from", "measure": 1}}
    net = qprune.swap(dense(), x, quantize=[rule], numerics="exact").train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    driver = qprune.ScheduleDriver(net, x, optimizer=optimizer)
    biases = [module for module in net.modules() if isinstance(module, BiasQuant)]
    for step in range(3):
        assert all(bool(bias.active) == (step == 2) for bias in biases)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        driver.step()
    conv = net[6]  # type: ignore[index]
    steps = conv._weight_and_bias()[1] / conv.bias_quant.scale  # type: ignore[operator,union-attr]
    assert torch.equal(steps, steps.round())


def test_driver_without_an_example_cannot_give_biases_their_grid(x: Tensor) -> None:
    net = qprune.swap(dense(), x, quantize=[WEIGHTS], numerics="exact")
    with pytest.raises(PlanError, match=r"exact numerics .* pass example="):
        qprune.ScheduleDriver(net)


def test_bias_out_of_proportion_gets_room() -> None:
    layer = QuantConv2d(2, 3, 1, weight_bits=8, act_bits=8)
    layer.weight_quant.numerics = layer.input_quant.numerics = "exact"  # type: ignore[union-attr]
    with torch.no_grad():
        layer.weight.mul_(1e-9)
        layer.bias.fill_(3.0)  # type: ignore[union-attr]
    layer.bias_quant = BiasQuant(3, levels=255)
    layer.weight_quant.calibrate(layer.weight)  # type: ignore[union-attr]
    layer.input_quant.calibrate(torch.rand(5, 2))  # type: ignore[union-attr]
    settle_biases([(layer, layer.input_quant)])  # type: ignore[list-item]
    torch.testing.assert_close(layer._weight_and_bias()[1], layer.bias.detach(), rtol=1e-5, atol=0)  # type: ignore[union-attr]


def test_layers_with_sums_beyond_float32_compute_in_float64_in_eval() -> None:
    torch.manual_seed(0)
    layer = QuantConv2d(512, 2, 3, weight_bits=8, act_bits=8).eval()
    layer.bias_quant = BiasQuant(2, levels=255)
    assert layer.beyond_float()
    assert not QuantConv2d(512, 2, 3, weight_bits=8, act_bits=8).beyond_float()
    x = torch.rand(2, 512, 5, 4)
    layer.weight_quant.calibrate(layer.weight)  # type: ignore[union-attr]
    layer.input_quant.calibrate(x)  # type: ignore[union-attr]
    weight, bias = (each.double() for each in layer._weight_and_bias())  # type: ignore[union-attr]
    exact = nn.functional.conv2d(layer.input_quant(x).double(), weight, bias)  # type: ignore[misc]
    assert torch.equal(layer(x), exact.float())


def test_plan_names_layers_beyond_float32() -> None:
    plan = qprune.plan("cifar100/preactresnet18/a75_wa8_t_st", overrides=["numerics=exact"])
    (note,) = [note for note in plan.notes if "float64" in note]
    assert "stage4.1.conv2" in note
    assert "stage3.0.conv2" in note
    assert "stage1.0.conv1" not in note  # three quarters of its channels are dropped by the run it starts from
    assert ", stem" not in note


def test_exact_numerics_without_quantizers_are_a_mistake(x: Tensor) -> None:
    with pytest.raises(PlanError, match=r"is about quantizers, and there are none"):
        make_exact(copy.deepcopy(dense()), x)


def test_exact_run_without_a_run_to_start_from_is_a_mistake(tmp_path: object) -> None:
    spec = {
        "name": "mine", "numerics": "exact", "data": {"name": "digits"}, "model": {"arch": "mobilenetv2", "width": 0.1},
        "train": {"length": "2it", "batch": 8, "optimizer": {"name": "sgd", "lr": 0.1}}, "quantize": [WEIGHTS],
    }  # fmt: skip
    with pytest.raises(SpecError, match=r"they have no statistics yet; name a trained run \(init in mine\)"):
        qprune.fit(spec, runs=str(tmp_path), verbose=0)


PRUNED = {
    "name": "pruned", "data": {"name": "digits", "train_images": 200},
    "train": {"length": "12it", "batch": 20, "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}},
    "model": {"layers": [
        {"name": "conv", "type": "Conv2d", "out_channels": 6, "kernel_size": 3},
        {"name": "norm", "type": "BatchNorm2d"},
        {"name": "act", "type": "ReLU"},
        {"name": "pool", "type": "AdaptiveAvgPool2d", "output_size": 1},
        {"name": "flat", "type": "Flatten"},
        {"name": "classifier", "type": "Linear", "out_features": 10},
    ]},
    "prune": [
        {"sites": [{"types": ["ReLU"], "at": "output"}], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 6}},
    ],
}  # fmt: skip
LAYERS = {"sites": [{"types": ["Conv2d", "Linear"], "at": "weight"}], "bits": 4, "per": "channel"}
EXACT = PRUNED | {
    "name": "exact", "init": "pruned", "numerics": "exact",
    "prune": [{"sites": [{"types": ["ReLU"], "at": "output"}], "schedule": {"kind": "inherited"}}],
    "quantize": [LAYERS | {"schedule": {"kind": "quantize-from", "start": 6, "measure": 4}}],
}  # fmt: skip


class Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, object]) -> None:
        if self.trainer.step == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", [3, 6, 9])  # before quantizers measure, when they start, and when they are active
def test_exact_run_goes_on_to_the_same_bits(step: int, tmp_path: Path) -> None:
    qprune.fit(PRUNED, runs=tmp_path, verbose=0)
    whole = qprune.fit(EXACT, runs=tmp_path, verbose=0, name="whole")
    assert qprune.fit(EXACT, runs=tmp_path, verbose=0, callbacks=[Interrupt(step)]).interrupted
    again = qprune.fit(EXACT, runs=tmp_path, verbose=0, resume=True)
    assert again.scores == whole.scores
    one, other = (qprune.load(run, runs=tmp_path).state_dict() for run in ("whole", "exact"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["conv.weight"].shape == (3, 1, 3, 3)
    assert one["conv.bias_quant.active"]
