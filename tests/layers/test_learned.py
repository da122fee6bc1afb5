"""Quantizers that learn their steps: their gradients, and how they train, resume, shrink and are exported."""

import copy
import itertools
import math
import os
import signal
import tomllib
from functools import partial
from pathlib import Path

import forked
import pytest
import torch
from contract import run_graph_contract
from torch import nn

import qprune
from qprune.errors import CheckpointError, PlanError, SpecError
from qprune.layers import (
    FakeQuant,
    LearnedQuant,
    PrunedQuantConv2d,
    QuantConv2d,
    QuantLinear,
    learned_parameters,
    make_quant,
)
from qprune.rounding import fake_quantize_learned
from qprune.schedules import OneShot, QuantizeFrom
from qprune.spec import OptimizerSpec
from qprune.training import Callback, ScheduleDriver, make_average, make_optimizer
from qprune.training.shrinking import Shrinker

ROOT = Path(__file__).parents[2]
FORMS = pytest.mark.parametrize(
    ("channels", "symmetric", "bits"), list(itertools.product((None, 3), (True, False), (2, 4, 8)))
)


def measured(bits=4, x=None, **options):
    """An active quantizer whose range is too small for ``x``, so that some of its values are clamped."""
    x = torch.randn(2, 3, 5, 7) if x is None else x
    return LearnedQuant(bits, **options).calibrate(x / 3).train(), x


# ---- gradients


@FORMS
def test_gradients_are_those_of_torchs_own_learnable_quantizer(channels, symmetric, bits):
    quant, x = measured(bits, channels=channels, symmetric=symmetric)
    scale, zero_point = (each.clone().float().requires_grad_() for each in (quant.scale, quant.zero_point))
    ours, theirs, weight = x.clone().requires_grad_(), x.clone().requires_grad_(), torch.randn_like(x)
    y = fake_quantize_learned(ours, scale, zero_point, *quant.code_bounds, axis=1)
    (y * weight).sum().backward()
    other_scale, other_zero = (each.detach().clone().view(-1).requires_grad_() for each in (scale, zero_point))
    if channels is None:
        z = torch._fake_quantize_learnable_per_tensor_affine(theirs, other_scale, other_zero, *quant.code_bounds, 1.0)
    else:
        z = torch._fake_quantize_learnable_per_channel_affine(
            theirs, other_scale, other_zero, 1, *quant.code_bounds, 1.0
        )
    (z * weight).sum().backward()
    torch.testing.assert_close(y, z)
    assert torch.equal(ours.grad, theirs.grad)
    torch.testing.assert_close(scale.grad.view(-1), other_scale.grad)
    torch.testing.assert_close(zero_point.grad.view(-1), other_zero.grad)


@FORMS
def test_gradients_of_step_and_offset_are_the_published_formulas(channels, symmetric, bits):
    quant, x = measured(bits, channels=channels, symmetric=symmetric)
    quant(x).sum().backward()
    low, high = quant.code_bounds
    s, z = (each.double().view(-1, 1, 1) for each in (quant.scale, quant.zero_point))
    codes = (x / s).round() + z
    below, above = codes < low, codes > high
    assert below.any()
    assert above.any()
    # v with the offset b = -z * s as its origin: round((v - b) / s) - (v - b) / s inside, else the code at that end
    by_step = torch.where(below, low, torch.where(above, high, (x / s).round() - x / s))
    others, shared = ((0, 1, 2, 3), 3 * 5 * 7) if channels is None else ((0, 2, 3), 5 * 7)
    share = 1 / math.sqrt(shared * high)
    torch.testing.assert_close(quant.step.grad.double(), by_step.sum(others) * share, rtol=1e-4, atol=1e-4)
    if not symmetric:
        torch.testing.assert_close(quant.offset.grad.double(), (below | above).double().sum(others) * share)


def test_a_step_that_weights_share_has_the_share_of_all_of_them():
    layer = QuantConv2d(2, 3, 1, weight_bits=4, act_bits=None, per="tensor", range="learned")
    layer.weight_quant.calibrate(layer.weight).train()
    grown = layer.weight.detach() * 1000  # all are clamped
    layer.weight_quant(grown).sum().backward()
    expected = 7 * grown.sign().sum() / math.sqrt(6 * 7)
    torch.testing.assert_close(layer.weight_quant.step.grad, expected)


def test_the_share_does_not_depend_on_the_number_of_images():
    quant, x = measured(symmetric=False)
    twin = copy.deepcopy(quant)
    quant(x).sum().backward()
    twin(x.repeat(3, 1, 1, 1)).sum().backward()
    torch.testing.assert_close(twin.step.grad, 3 * quant.step.grad)


# ---- the same arithmetic as all quantizers


@FORMS
@pytest.mark.parametrize("numerics", ["default", "exact"])
def test_training_rounds_as_eval_and_as_a_measured_quantizer_of_that_grid(channels, symmetric, bits, numerics):
    quant, x = measured(bits, channels=channels, symmetric=symmetric, numerics=numerics)
    with torch.no_grad():
        quant.step.mul_(1.3)
        quant.offset.sub_(0.4 * quant.step) if not symmetric else None
    plain = FakeQuant(bits, channels=channels, symmetric=symmetric, numerics=numerics).calibrate(x).eval()
    plain.scale.copy_(quant.scale)
    plain.zero_point.copy_(quant.zero_point)
    y = quant(x)
    assert torch.equal(y, copy.deepcopy(quant).eval()(x))
    assert torch.equal(y, plain(x))
    assert torch.equal(quant.codes(x), plain.codes(x))


@FORMS
def test_it_starts_with_the_grid_of_the_measured_range(channels, symmetric, bits):
    options = {"channels": channels, "symmetric": symmetric}
    quant, plain, x = LearnedQuant(bits, **options), FakeQuant(bits, **options), torch.randn(2, 3, 5, 7)
    for each in (quant, plain):
        each.train().measuring = True
        for factor in (1.0, 2.5):
            each(factor * x)
            each.commit()
    assert torch.equal(quant.range, plain.range)
    assert torch.equal(quant.scale, plain.scale)
    assert torch.equal(quant.zero_point, plain.zero_point)


def test_it_passes_values_through_and_learns_nothing_before_it_is_active():
    layer, x = QuantConv2d(2, 3, 1, range="learned").train(), torch.randn(2, 2, 5, 7)
    for part in (layer.weight_quant, layer.input_quant):
        part.told_active = False  # as a driver says
    dense = nn.Conv2d(2, 3, 1)
    dense.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    y = layer(x)
    assert torch.equal(y, dense(x))
    y.sum().backward()
    assert all(parameter.grad is None for parameter in learned_parameters(layer))


def test_what_it_measures_while_it_is_active_changes_nothing():
    quant, x = measured()
    before, quant.measuring = quant.step.clone(), True
    quant(100 * x)
    quant.commit()
    assert torch.equal(quant.step, before)


@pytest.mark.parametrize("moved", [0.0, -3.0])
@pytest.mark.parametrize("numerics", ["default", "exact"])
def test_a_step_that_was_moved_to_zero_or_below_gives_finite_values_and_comes_back(moved, numerics):
    quant, x = measured(numerics=numerics, symmetric=True)
    with torch.no_grad():
        quant.step.fill_(moved)
    assert quant.scale == 2.0**-40
    (quant(x) - x).square().sum().backward()
    assert quant.step.grad.isfinite()
    assert quant.step.grad < 0  # descent makes it larger


@pytest.mark.parametrize(
    ("learned", "grid"), [(0.25, 0.25), (0.3, 0.25), (0.36, 0.5), (0.6, 0.5), (0.2501, 0.25), (0.2499, 0.25)]
)
def test_exact_steps_are_the_nearest_powers_of_two(learned, grid):
    quant, _ = measured(numerics="exact")
    with torch.no_grad():
        quant.step.fill_(learned)
    assert quant.scale == grid
    assert quant.zero_point % 2 == 0


def test_the_compiled_layer_equals_the_eager_one():
    run_graph_contract(QuantConv2d, 6, 4, 3, range="learned", weight_bits=4, act_bits=3)


# ---- its state


def test_its_parameters_are_there_from_the_start_and_in_the_state():
    layer = QuantLinear(5, 3, range="learned")
    assert {name for name, _ in layer.named_parameters()} == {
        "weight", "bias", "weight_quant.step", "input_quant.step", "input_quant.offset",
    }  # fmt: skip
    assert list(layer.weight_quant.state_dict()) == ["step", "range", "seen", "active", "offset"]


def test_state_of_a_quantizer_that_measured_is_where_learning_goes_on():
    x = torch.randn(2, 3, 5, 7)
    plain, quant = FakeQuant(4, channels=3).calibrate(x).eval(), LearnedQuant(4, channels=3).eval()
    quant.load_state_dict(plain.state_dict())
    assert torch.equal(quant(x), plain(x))


def test_it_learns_as_a_single_channel_what_it_learned_for_all_of_them():
    quant, x = measured(symmetric=True, axis=0)
    wide = quant.per_channel(2)
    assert isinstance(wide, LearnedQuant)
    assert torch.equal(wide.eval()(x), quant.eval()(x))


def test_selected_channels_keep_their_steps_and_gradients():
    quant, x = measured(channels=3)
    quant(x).sum().backward()
    step, grad = quant.step, quant.step.grad.clone()
    values = step.detach().clone()
    quant.select(torch.tensor([2, 0]))
    assert quant.step is step
    assert torch.equal(step, values[[2, 0]])
    assert torch.equal(step.grad, grad[[2, 0]])
    assert quant(x[:, [2, 0]]).shape == (2, 2, 5, 7)


def test_a_run_goes_on_from_grids_that_were_measured_and_not_the_other_way_round(tmp_path):
    measuring = [{key: value for key, value in rule.items() if key != "range"} for rule in LEARNED]
    _, before = fitted(tmp_path, spec_of(name="first", quantize=measuring))
    still = {"optimizer": {"name": "sgd", "lr": 1e-9}}
    _, after = fitted(tmp_path, spec_of(name="second", init="first", train=still))
    steps = [name.removesuffix("step") for name in after if name.endswith(".step")]
    assert steps
    for name in steps:
        torch.testing.assert_close(after[f"{name}step"], before[f"{name}scale"])
    sentence = (
        r'"classifier.weight_quant" learned its steps there, and measures here: give its rule range = "learned"\.'
    )
    with pytest.raises(CheckpointError, match=sentence):
        fitted(tmp_path, spec_of(name="third", init="second", quantize=measuring))


def test_calibrating_gives_the_grids_that_measuring_gives():
    torch.manual_seed(2)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    batches, x = [torch.randn(5, 3, 7, 6) for _ in range(3)], torch.randn(2, 3, 7, 6)
    outputs = []
    for word in ("measured", "learned"):
        sites = [{"types": ["Conv2d"], "at": at} for at in ("input", "weight")]
        rule = {"sites": sites, "bits": 4, "start": 0, "range": word}
        net = qprune.swap(dense, x, quantize=[rule])
        outputs += [qprune.calibrate(net, batches)(x), qprune.calibrate(net, batches)(x)]
    assert all(torch.equal(outputs[0], each) for each in outputs)


# ---- refusals


def test_numerics_whose_zero_points_are_no_integers_are_refused():
    sentence = 'range = "learned" needs numerics = "default" or "exact"; received numerics = "paper"'
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        QuantConv2d(2, 3, 1, range="learned", numerics="paper")
    rule = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": 3, "range": "learned"}
    with pytest.raises(PlanError, match=f"{sentence} \\(quantize\\[0\\].range in swap\\)"):
        qprune.swap(nn.Sequential(nn.Conv2d(2, 3, 1)), torch.zeros(1, 2, 5, 7), quantize=[rule], numerics="paper")


def test_a_straight_gradient_is_refused():
    sentence = 'gradient must be "clipped", or left out, where range = "learned"; received "straight"'
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        QuantConv2d(2, 3, 1, range="learned", gradient="straight")
    rule = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": 3, "range": "learned"}
    with pytest.raises(SpecError, match=sentence):
        qprune.plan(spec_of(quantize=[rule | {"gradient": "straight"}]))


def test_another_range_is_refused():
    with pytest.raises(ValueError, match=r"^range must be \"measured\" or \"learned\"; received 'lerned'$"):
        make_quant(4, ranging="lerned")
    rule = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": 3, "range": "lerned"}
    with pytest.raises(SpecError, match='range must be "measured" or "learned"; received "lerned"; nearest: "learned"'):
        qprune.plan(spec_of(quantize=[rule]))


def test_an_average_of_steps_that_biases_follow_is_refused(tmp_path):
    qprune.fit(spec_of(name="dense", quantize=[]), runs=tmp_path, verbose=0)
    spec = spec_of(name="exact", numerics="exact", init="dense", train={"ema": 0.9})
    for command in (qprune.plan, partial(qprune.fit, verbose=0)):
        with pytest.raises(PlanError, match=r"train without the average \(train.ema\), or take range = \"measured\""):
            command(spec, runs=tmp_path)


# ---- training


def loop(net, driver, optimizer, steps, seed=4, average=None):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(4, 3, 7, 6, generator=generator)
        optimizer.zero_grad()
        (net(x) - 1).square().mean().backward()
        optimizer.step()
        driver.step()
        if average is not None:
            average.update_parameters(net)


def small(per="channel", **options):
    torch.manual_seed(0)
    options |= {"schedule": QuantizeFrom(3), "range": "learned", "weight_bits": 3, "act_bits": 3, "per": per}
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), QuantConv2d(6, 4, 3, **options)).train()


def test_steps_move_when_the_quantizer_is_active_and_not_before():
    net = small()
    sgd = make_optimizer(OptimizerSpec("sgd", lr=0.1, momentum=0.9, weight_decay=0.1), net)
    driver, quant = ScheduleDriver(net, optimizer=sgd), net[2].weight_quant
    loop(net, driver, sgd, 3)
    begun = quant.scale_and_zero_point(*quant.range)[0]
    assert quant.active
    assert torch.equal(quant.step, begun)  # weight decay has moved nothing
    loop(net, driver, sgd, 5)
    assert (quant.step != begun).all()
    assert torch.equal(quant.scale_and_zero_point(*quant.range)[0], begun)


def test_learning_steps_lowers_the_error_of_rounding():
    torch.manual_seed(1)
    x = torch.randn(64, 8) * torch.rand(64, 8) ** 3
    quant = LearnedQuant(2, symmetric=True).calibrate(x).train()
    adam = torch.optim.Adam(quant.parameters(), lr=0.02)
    before = (quant(x) - x).square().mean().item()
    for _ in range(200):
        adam.zero_grad()
        (quant(x) - x).square().mean().backward()
        adam.step()
    assert (quant(x) - x).square().mean().item() < before / 2


def test_weight_decay_leaves_learned_steps_alone():
    net = small()
    for name, more in (("sgd", {"momentum": 0.9}), ("adam", {}), ("adamw", {})):
        optimizer = make_optimizer(OptimizerSpec(name, lr=0.1, weight_decay=0.1, **more), net)
        dense, learned = optimizer.param_groups
        assert (dense["weight_decay"], learned["weight_decay"]) == (0.1, 0.0)
        assert set(map(id, learned["params"])) == set(map(id, learned_parameters(net)))
        assert len(dense["params"]) + len(learned["params"]) == len(list(net.parameters()))


def test_a_moving_average_of_steps_begins_where_they_begin():
    net = small()
    average = make_average(net, decay=0.99)
    sgd = torch.optim.SGD(net.parameters(), lr=0.05)
    loop(net, ScheduleDriver(net, optimizer=sgd, average=average.module), sgd, 3, average=average)
    ours, mean = net[2].weight_quant, average.module[2].weight_quant
    torch.testing.assert_close(mean.step, ours.step)
    assert mean.active


@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_cutting_channels_takes_steps_moments_and_averages_along(per):
    torch.manual_seed(0)
    options = {"range": "learned", "weight_bits": 3, "act_bits": 3, "quant_schedule": QuantizeFrom(2), "per": per}
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(),
        PrunedQuantConv2d(6, 4, 3, at="weight", prune_schedule=OneShot(0.5, at=4), **options), nn.ReLU(),
        nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    example = torch.zeros(1, 3, 9, 8)
    sgd, average = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), make_average(net, 0.9)
    driver = ScheduleDriver(net, example, optimizer=sgd, average=average.module, steps=100)
    loop(net, driver, sgd, 5, average=average)
    keep, quant = net[2].weight_mask.keep.clone(), net[2].weight_quant
    expected = [quant.step.detach().clone(), sgd.state[quant.step]["momentum_buffer"].clone()]
    shrinker = Shrinker(net, driver, sgd, example=example, steps=100, average=average.module, when="after-pruning")
    shrinker.wasted = 1e9
    assert shrinker.step(frozen=True)
    found = [quant.step.detach(), sgd.state[quant.step]["momentum_buffer"]]
    for before, after in zip(expected, found, strict=True):
        assert torch.equal(after, before[keep] if per == "channel" else before)
    assert average.module[2].weight_quant.step.shape == quant.step.shape
    loop(net, driver, sgd, 2, average=average)


# ---- runs


class CtrlC(Callback):
    """Sends the signal of Ctrl-C in the middle of a step, after quantizers started."""

    def on_train_batch_begin(self, batch, logs):
        if self.trainer.step == 6:
            os.kill(os.getpid(), signal.SIGINT)


LEARNED = [
    {"sites": [{"types": ["Conv2d", "Linear"], "at": "weight"}], "bits": 4, "per": "channel", "start": 4,
     "range": "learned"},
    {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 4, "start": 3, "range": "learned"},
]  # fmt: skip


def spec_of(name="learned", train=(), **others):
    """Twelve steps on 256 digits, of which the last eight learn steps."""
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    return {
        "name": name,
        "data": {"name": "digits", "train_images": 256},
        "model": tomllib.loads((ROOT / "specs/base/digits.toml").read_text(encoding="utf-8"))["model"],
        "train": {"length": 12, "batch": 64, "optimizer": optimizer} | dict(train),
        "quantize": LEARNED,
    } | others


def fitted(runs, spec, **options):
    """History and state of the model; none where it was interrupted."""
    history = qprune.fit(spec, runs=runs, verbose=0, device="cpu", **options)
    if history.interrupted:
        return history, {}
    return history, torch.load(history.run / "model.pt", weights_only=True)["state"]


@pytest.mark.parametrize("train", [{}, {"ema": 0.9, "accumulate": 2, "clip_norm": 1.0, "precision": "bfloat16"}])
def test_a_training_resumes_to_the_same_bits(train, tmp_path):
    _, whole = fitted(tmp_path / "whole", spec_of(train=train))
    assert fitted(tmp_path / "broken", spec_of(train=train), callbacks=[CtrlC()])[0].interrupted
    _, resumed = fitted(tmp_path / "broken", spec_of(train=train), resume=True)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_run_opens_with_its_steps_shrinks_and_exports(tmp_path):
    pruned = [{"sites": [{"types": ["ReLU"], "at": "output", "skip": [-1]}], "sparsity": 0.5,
               "schedule": {"kind": "one-shot", "at": 6}}]  # fmt: skip
    history, state = fitted(tmp_path, spec_of(prune=pruned, train={"shrink": "as-frozen", "length": 40}))
    net, x = qprune.load(history.run), torch.rand(5, 1, 8, 8)
    quants = {name: part for name, part in net.named_modules() if isinstance(part, LearnedQuant)}
    assert quants
    assert all(torch.equal(part.step, state[f"{name}.step"]) for name, part in quants.items())
    assert all(part.active for part in quants.values())
    small = qprune.shrink(net, x)
    torch.testing.assert_close(small(x), net(x))
    qprune.save(net, tmp_path / "net.pt", x)
    assert torch.equal(qprune.load(tmp_path / "net.pt")(x), net(x))
    certificate = qprune.export(history.run, tmp_path / "net.onnx")
    assert all(each.within_one > 0.9 for each in certificate.quantizers)


def test_steps_are_no_parameters_of_the_report(tmp_path):
    options = {"weight_bits": 4, "act_bits": 4}
    counts = [
        qprune.summary(nn.Sequential(QuantConv2d(3, 4, 3, range=range, **options)), input_size=(3, 8, 8)).total
        for range in ("measured", "learned")
    ]
    assert counts[0].parameters == counts[1].parameters == 3 * 4 * 9 + 4


def test_exact_numerics_with_steps_that_move_compute_the_same_bits_from_a_file(tmp_path):
    qprune.fit(spec_of(name="dense", quantize=[], train={"length": 30}), runs=tmp_path, verbose=0)
    train = {"optimizer": {"name": "adam", "lr": 0.003}, "length": 30}
    data = {"name": "digits", "train_images": 256, "validation": 0.0}  # so that the last step is the model
    history, _ = fitted(tmp_path, spec_of(name="exact", numerics="exact", init="dense", train=train, data=data))
    net = qprune.load(history.run)
    quants = [part for part in net.modules() if isinstance(part, LearnedQuant)]
    begun = [part.scale_and_zero_point(*part.range)[0] for part in quants]
    assert any((part.scale != scale).any() for part, scale in zip(quants, begun, strict=True))  # beyond a power of two
    certificate = qprune.export(history.run, tmp_path / "exact.onnx")
    assert certificate.exact


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    script = Path(__file__).with_name("in_processes.py")
    for size, name in ((1, "one"), (2, "two")):
        for process in forked.together(size, script, tmp_path / name):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    one, two = (torch.load(tmp_path / name / "short/model.pt", weights_only=True)["state"] for name in ("one", "two"))
    steps = [name for name in one if name.endswith((".step", ".offset"))]
    assert len(steps) == 3 * 2 + 2 * 2
    for name in steps:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
