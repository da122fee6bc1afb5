"""Channels that leave a network while it trains: the training goes on as that of the masked network."""

import copy
import json
from pathlib import Path

import pytest
import torch
from attrs import evolve
from torch import nn

import qprune
from qprune import zoo
from qprune.errors import CheckpointError, ShrinkError
from qprune.flow import trace
from qprune.layers import PrunedConv2d, sites
from qprune.schedules import OneShot
from qprune.spec import read_spec
from qprune.tasks import Classification
from qprune.training import ScheduleDriver, Shrinker, Update, load_checkpoint, make_average, shrinking

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=5e-3),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.002, weight_decay=5e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.002, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.002),
}
NETS = {
    "mobilenetv2": ({"width": 0.25, "classes": 7}, [{"types": ["ReLU6"], "at": "output"}]),
    "densenet121": ({"width": 0.125, "classes": 7}, [{"types": ["ReLU"], "at": "output"}]),
    "preactresnet18": ({"width": 0.125, "classes": 7}, [{"types": ["Conv2d"], "at": "weight"}]),
}


def pruned(name, steps=3):
    torch.manual_seed(0)
    options, chosen = NETS[name]
    net = zoo.create(name, **options)
    schedule = {"kind": "one-shot", "at": steps}
    importance = "weight-l1" if chosen[0]["at"] == "weight" else "activation-l1"
    rule = {"sites": chosen, "sparsity": 0.75, "importance": importance, "schedule": schedule}
    return qprune.swap(net, example(), prune=[rule])


def example():
    return torch.zeros(2, 3, 16, 24)


def batch(step, size=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 3, 16, 24, generator=generator).to(dtype), torch.randint(7, (size,), generator=generator)


def losses(net, optimizer, steps=5, cut=False, average=None, **options):
    """The losses of a few steps; with ``cut``, channels leave as soon as their masks are frozen."""
    optimizer = OPTIMIZERS[optimizer](net.parameters())
    inner = average and average.module
    like = example().to(next(net.parameters()).dtype)
    driver = ScheduleDriver(net, like, optimizer=optimizer, steps=steps, average=inner)
    shrinker = Shrinker(net, driver, optimizer, example=like, steps=steps, average=inner)
    shrinker.cost = 0
    update = Update(net, Classification(classes=7), optimizer, device=torch.device("cpu"), **options)
    found, dtype = [], next(net.parameters()).dtype
    for step in range(steps):
        found.append(update.backward(batch(step, dtype=dtype)).item())
        update.apply()
        events = driver.step()
        if average is not None:
            average.update_parameters(net)
        if cut:
            shrinker.step(any(event.get("frozen") for event in events))
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_next_loss_is_that_of_the_masked_network_whatever_the_optimizer(optimizer):
    net = pruned("mobilenetv2").double()  # where rounding does not grow into something over the steps
    small = copy.deepcopy(net)
    expected, found = losses(net, optimizer), losses(small, optimizer, cut=True)
    assert found == pytest.approx(expected, rel=1e-6)
    assert sum(p.numel() for p in small.parameters()) < 0.3 * sum(p.numel() for p in net.parameters())
    assert not any(site.mask for site in sites(small))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_next_loss_is_that_of_the_masked_network_in_any_precision(name, precision):
    net = pruned(name)
    small = copy.deepcopy(net)
    expected = losses(net, "sgd", steps=4, precision=precision, clip_norm=5.0)
    found = losses(small, "sgd", steps=4, cut=True, precision=precision, clip_norm=5.0)
    assert found[:3] == expected[:3]  # nothing is cut yet
    # normalizing over six values makes much of rounding
    assert found[3] == pytest.approx(expected[3], rel=2e-3 if precision == "float32" else 0.02)


def test_moments_and_averages_are_cut_with_the_parameters():
    net = pruned("preactresnet18")
    average = make_average(net, decay=0.5)
    whole, twin = copy.deepcopy(net), make_average(net, decay=0.5)
    twin.module.load_state_dict(average.module.state_dict())
    losses(net, "adam", cut=True, average=average)
    losses(whole, "adam", average=twin)
    with torch.no_grad():
        ours, theirs = average.module.eval()(batch(9)[0]), twin.module.eval()(batch(9)[0])
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in average.parameters()) == sum(p.numel() for p in net.parameters())


def test_a_mask_that_is_not_frozen_keeps_all_of_its_channels_and_its_weights():
    torch.manual_seed(0)
    early, late = OneShot(sparsity=0.5, at=1), OneShot(sparsity=0.5, at=9)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), PrunedConv2d(8, 10, 3, schedule=early), nn.ReLU(),
        PrunedConv2d(10, 6, 3, schedule=late, at="weight"), nn.ReLU(), nn.Flatten(), nn.LazyLinear(7),
    )  # fmt: skip
    net(example())
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    driver = ScheduleDriver(net, optimizer=optimizer, steps=20)
    shrinker = Shrinker(net, driver, optimizer, example=example(), steps=20)
    shrinker.cost = 0
    net(batch(0)[0]).sum().backward()
    optimizer.step()
    assert not shrinker.step(False)
    assert shrinker.step(any(event["frozen"] for event in driver.step()))
    assert (net[0].out_channels, net[2].in_channels, net[2].out_channels) == (4, 4, 10)
    assert (net[4].in_channels, net[4].out_channels, net[4].weight_mask.channels) == (10, 6, 6)


def test_cuts_are_rationed_by_steps_and_multiplications_alone(monkeypatch):
    net = pruned("mobilenetv2", steps=2)
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    driver = ScheduleDriver(net, example(), optimizer=optimizer, steps=9)
    shrinker = Shrinker(net, driver, optimizer, example=example(), steps=9)
    for step in range(2):
        net(batch(step)[0]).sum().backward()
        optimizer.step()
        events = driver.step()
    assert not shrinker.step(any(event["frozen"] for event in events))  # seven steps are left: it would not pay
    assert 0.5 < shrinker.excess < 1
    shrinker.steps = 100
    assert shrinker.step(False)
    assert shrinker.excess == shrinker.wasted == 0


def test_an_optimizer_whose_moments_cannot_be_cut_is_refused():
    net = pruned("mobilenetv2", steps=2)
    optimizer = torch.optim.Adafactor(net.parameters())
    driver = ScheduleDriver(net, example(), optimizer=optimizer, steps=9)
    shrinker = Shrinker(net, driver, optimizer, example=example(), steps=9)
    shrinker.cost = 0
    for step in range(2):
        net(batch(step)[0]).sum().backward()
        optimizer.step()
        events = driver.step()
    with pytest.raises(ShrinkError, match=r"Adafactor keeps \w+ of shape .*: they cannot be cut alike"):
        shrinker.step(any(event["frozen"] for event in events))


def test_when_is_checked():
    with pytest.raises(ValueError, match="when must be one of as-frozen, after-pruning; received 'now'"):
        Shrinker(nn.ReLU(), None, None, example=None, steps=1, when="now")  # type: ignore[arg-type]


DIGITS = ["data.train_images=300", "train.batch=30", "train.length=90it", "train.validate_every=30it",
          'prune[0].schedule={kind="layerwise", start="2it", interval="3it", refresh="1it"}']  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same digits, dense, then pruned with and without cutting, then quantized from what was cut."""
    root = tmp_path_factory.mktemp("runs")
    qprune.fit("digits/baseline", runs=root, overrides=DIGITS[:4], verbose=0)
    for when in ("never", "as-frozen", "after-pruning"):
        overrides = [*DIGITS, f'train.shrink="{when}"']
        spec = evolve(read_spec("digits/a75_layerwise", overrides), name=f"digits/{when}")
        qprune.fit(spec, runs=root, verbose=0)
    return root


def report(runs, name):
    return json.loads((runs / name / "report.json").read_text())


@pytest.mark.parametrize("when", ["as-frozen", "after-pruning"])
def test_a_run_that_cuts_is_that_of_the_masked_network(runs, when):
    ours, theirs = report(runs, f"digits/{when}"), report(runs, "digits/never")
    for name in ("parameters", "parameters_kept", "macs", "macs_kept", "sparsity", "packed_bytes"):
        assert ours["costs"][name] == theirs["costs"][name], name
    assert ours["scores"]["test"]["accuracy"] == pytest.approx(theirs["scores"]["test"]["accuracy"], abs=0.05)
    net = qprune.load(f"digits/{when}", runs=runs)
    assert not any(site.mask for site in sites(net))
    assert sum(p.numel() for p in net.parameters()) <= theirs["costs"]["parameters_kept"]
    assert qprune.evaluate(f"digits/{when}", runs=runs) == ours["scores"]["test"]


def test_the_next_stage_trains_on_the_small_network_from_its_first_step(runs):
    seen = []

    class Watch(qprune.training.Callback):  # type: ignore[name-defined]
        def on_train_batch_begin(self, batch, logs):
            if not seen:
                seen.append(sum(p.numel() for p in self.trainer.net.parameters()))

    overrides = [*DIGITS[:2], "train.length=40it", "train.validate_every=20it", 'init="digits/as-frozen"',
                 'quantize[0].start="20it"', 'quantize[1].start="10it"']  # fmt: skip
    history = qprune.fit("digits/a75_w4a4", runs=runs, overrides=overrides, callbacks=[Watch()], verbose=0)
    small = report(runs, "digits/as-frozen")["costs"]["parameters_kept"]
    assert seen[0] <= small
    costs = report(runs, "digits/a75_w4a4")["costs"]
    assert costs["parameters"] == report(runs, "digits/never")["costs"]["parameters"]
    assert costs["parameters_kept"] == small
    assert costs["weight_bits"] == [4]
    scores = qprune.evaluate("digits/a75_w4a4", runs=runs)
    assert scores == history.scores["test"]
    assert all(site.quant.active for site in sites(qprune.load("digits/a75_w4a4", runs=runs)))


def test_the_next_stage_must_have_a_place_for_the_masks_that_were_cut(runs):
    overrides = [*DIGITS[:4], 'init="digits/as-frozen"', "prune=[]"]
    with pytest.raises(CheckpointError, match=r'has masks or quantizers at 6 sites .* kind = "inherited"'):
        qprune.fit("digits/a75_w4a4", name="digits/homeless", runs=runs, overrides=overrides, verbose=0)


def test_a_best_model_is_opened_like_the_last(runs):
    folder = Path(runs / "digits/as-frozen")
    best, final = load_checkpoint(folder / "best.pt"), load_checkpoint(folder / "model.pt")
    assert best["step"] == final["step"]
    assert sum(v.numel() for v in final["state"].values()) <= sum(v.numel() for v in best["state"].values())
    net = qprune.load(folder / "best.pt")
    assert sum(p.numel() for p in net.parameters()) < 10_000


def test_multiplications_are_those_of_the_summary():
    net = pruned("densenet121")
    flow = trace(net, torch.zeros(1, 3, 16, 24))
    assert shrinking.macs(flow) == qprune.summary(net, (3, 16, 24)).total.macs


def test_a_hook_whose_owner_cannot_be_copied_is_in_nobodys_way():
    class Owner:
        def __deepcopy__(self, memo):
            raise NotImplementedError("such as a callback with its trainer, whose loader has processes")

        def look(self, *_):
            pass

    owner, net = Owner(), pruned("mobilenetv2")
    net.register_forward_pre_hook(owner.look)
    before = sum(parameter.numel() for parameter in net.parameters())
    losses(net, "sgd", cut=True)
    assert sum(parameter.numel() for parameter in net.parameters()) < before
