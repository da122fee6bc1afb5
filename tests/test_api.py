"""The public face: what a user of `import qprune` meets, from fit to predict, on 150 real digits."""

import csv
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tomllib
from copy import deepcopy
from pathlib import Path

import forked
import pytest
import torch
import torchmetrics
from attrs import evolve
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import qprune
from qprune import api
from qprune.costs import chain_of
from qprune.data import load_data
from qprune.errors import CheckpointError, DataError, PlanError, QpruneError, SpecError
from qprune.layers import Aligned, ChannelMask, FakeQuant, PrunedConv2d, sites
from qprune.schedules import OneShot
from qprune.spec import DataSpec, read_spec, spec_to_toml
from qprune.training import Callback, LambdaCallback, load_checkpoint, planning, shrinking

ACTS = [{"types": ["ReLU"], "at": "output"}]
WEIGHTS = [{"types": ["Conv2d", "Linear"], "at": "weight"}]
LAYERWISE = {"kind": "layerwise", "start": 2, "interval": 2, "refresh": 2}
FILES = ["best.pt", "history.csv", "last.pt", "model.pt", "previous.pt", "report.json", "spec.toml", "tensorboard"]


def spec(name="tiny/dense", **tables):
    """Two convolutions on 135 training digits, 5 steps an epoch."""
    layers = [
        {"name": "conv1", "type": "Conv2d", "out_channels": 6, "kernel_size": 3},
        {"name": "act1", "type": "ReLU"},
        {"name": "conv2", "type": "Conv2d", "out_channels": 8, "kernel_size": 3},
        {"name": "act2", "type": "ReLU"},
        {"type": "Flatten"},
        {"name": "classifier", "type": "Linear", "out_features": 10},
    ]
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    return {
        "name": name,
        "data": {"name": "digits", "train_images": 135},
        "model": {"layers": layers},
        "train": {"length": "2ep", "batch": 32, "optimizer": optimizer},
    } | deepcopy(tables)


def pruned(**tables):
    rule = {"sites": ACTS, "sparsity": 0.5, "schedule": LAYERWISE}
    return spec("tiny/pruned", **({"init": "tiny/dense", "prune": [rule]} | tables))


def joint(**tables):
    quantize = [{"sites": WEIGHTS, "bits": 4, "per": "channel", "start": 4}, {"sites": ACTS, "bits": 4, "start": 2}]
    inherited = {"sites": ACTS, "schedule": {"kind": "inherited"}}
    return spec("tiny/joint", **({"init": "tiny/pruned", "prune": [inherited], "quantize": quantize} | tables))


def fit(source, runs, **options):
    return qprune.fit(source, runs=runs, verbose=0, **options)


def told(kind, action, *arguments, **options):
    with pytest.raises(kind) as caught:
        action(*arguments, **options)
    return str(caught.value)


def images(count=7):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The chain dense -> pruned -> joint, its runs' root and histories."""
    root = tmp_path_factory.mktemp("runs")
    return root, [fit(source, root) for source in (spec(), pruned(), joint())]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty root of runs, below an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def shelf(runs):
    """The chain as files below ./specs, so that ``init`` can be found by name."""
    for table in (spec(), pruned(), joint()):
        file = Path("specs", f"{table['name']}.toml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(spec_to_toml(read_spec(table)))
    return runs


class StopAt(Callback):
    """Presses Ctrl-C after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, batch, logs):
        if self.trainer.step == self.step:
            signal.raise_signal(signal.SIGINT)


# fit


def test_fit_returns_a_history_as_keras_does(trained):
    root, (dense, masked, _) = trained
    assert dense.history.keys() >= {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "step", "epoch", "seconds"}
    assert dense.history["step"] == [5, 10]
    assert dense.run == root / "tiny/dense"
    assert dense.scores.keys() == {"val", "test"}
    assert [event["step"] for event in masked.events if event["frozen"]] == [4, 7]


def test_a_run_folder_is_complete(trained):
    root, (*_, history) = trained
    run = root / "tiny/joint"
    assert sorted(path.name for path in run.iterdir()) == FILES
    with (run / "history.csv").open() as file:
        assert [float(row["val_accuracy"]) for row in csv.DictReader(file)] == history.history["val_accuracy"]
    report = json.loads((run / "report.json").read_text())
    assert report["scores"] == history.scores
    assert report["costs"]["weight_bits"] == [4]
    assert report["environment"].keys() == {"device", "processor", "processes", "threads", "python", "torch"}
    assert list((run / "tensorboard").iterdir())


def test_spec_toml_of_a_run_repeats_it(trained, tmp_path):
    root, (dense, *_) = trained
    again = fit(root / "tiny/dense/spec.toml", tmp_path)
    assert again.run == tmp_path / "tiny/dense"
    del again.history["seconds"]
    assert again.history.items() <= dense.history.items()


def test_overrides_are_used_and_recorded(runs):
    history = fit(spec(), runs, overrides=["train.length=3it", "train.optimizer.lr=0.01"])
    table = tomllib.loads((history.run / "spec.toml").read_text())
    assert history.history["step"] == [3]
    assert (table["train"]["length"], table["train"]["optimizer"]["lr"]) == ("3it", 0.01)


def test_a_progress_line_per_epoch_unless_silent(runs, capsys):
    qprune.fit(spec(), runs=runs, verbose=2, overrides={"train.length": "1ep"})
    assert [line.split(" - ")[0] for line in capsys.readouterr().out.splitlines()] == ["tiny/dense", "Epoch 1/1"]
    fit(spec("other"), runs, overrides={"train.length": "1ep"})
    assert capsys.readouterr().out == ""


def test_runs_lie_where_the_environment_says(runs, monkeypatch):
    monkeypatch.setenv("QPRUNE_RUNS", str(runs / "elsewhere"))
    history = qprune.fit(spec(), verbose=0, overrides=["train.length=1it"])
    assert history.run == runs / "elsewhere/tiny/dense"


def test_a_name_of_ones_own(runs):
    assert fit(spec(), runs, name="mine", overrides=["train.length=1it"]).run == runs / "mine"
    assert qprune.load("mine", runs=runs) is not None


def test_callbacks_of_ones_own_are_called(runs):
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, epoch, logs):
            seen.append((epoch, logs["step"]))

    fit(spec(), runs, callbacks=[Watch()])
    assert seen == [(0, 5), (1, 10)]


def rule(sites=ACTS, sparsity=0.5, schedule=LAYERWISE, **more):
    return {"prune": [{"sites": sites, "sparsity": sparsity, "schedule": schedule, **more}]}


CANNOT = {
    "past the end": (rule(schedule=LAYERWISE | {"start": 9}), "pruning ends at step 15 (3.00 ep), but training ends"),
    "output": (rule(WEIGHTS, importance="weight-l1", schedule={"kind": "one-shot", "at": 3}), "classifier"),
    "no match": (rule([{"paths": ["cnv1"], "at": "input"}]), 'No layer matches "cnv1". Nearest: "conv1"'),
    "late": ({"quantize": [{"sites": ACTS, "bits": 4, "start": 11}]}, "quantization starts at step 11"),
    "no sparsity": (rule(sparsity=0.0), "The rules prune nothing"),
}


@pytest.mark.parametrize(("change", "sentence"), CANNOT.values(), ids=CANNOT)
def test_what_cannot_work_is_refused_before_anything_is_written(runs, change, sentence):
    assert sentence in told(PlanError, fit, spec(**change), runs)
    assert sentence in told(PlanError, qprune.plan, spec(**change))
    assert not runs.exists()


def test_a_wrong_argument_leaves_no_folder_behind(runs):
    assert 'verbose must be "auto"' in told(ValueError, qprune.fit, spec(), runs=runs, verbose="loud")
    message = 'device must be one that is here; received "gpu".'
    assert message in told(QpruneError, fit, spec(), runs, device="gpu")
    assert "seed must be" in told(SpecError, fit, spec(), runs, seed=-1)
    assert 'name must be a relative path such as "digits/baseline"; received "../up"' in told(
        SpecError, fit, spec(), runs, name="../up"
    )
    assert not runs.exists()


# again, resumed, overwritten


def test_a_finished_run_is_refused_with_the_ways_out(trained):
    root, _ = trained
    message = told(CheckpointError, fit, spec(), root)
    assert "holds a finished run. Use --resume to score it again, --overwrite to train it anew" in message
    assert "or a new --name" in message


def test_a_finished_run_is_refused_before_its_data_is_read(trained, tmp_path):
    root, _ = trained
    gone = {"name": "folder", "root": str(tmp_path / "gone")}
    assert "holds a finished run" in told(CheckpointError, fit, spec(data=gone), root)


def test_overwrite_trains_anew(runs):
    fit(spec(), runs, overrides=["train.length=1it"])
    assert fit(spec(), runs, overwrite=True, overrides=["train.length=2it"]).history["step"] == [2]


def test_an_interrupted_run_goes_on_to_the_same_result(runs, trained):
    root, (dense, *_) = trained
    stopped = fit(spec(), runs, callbacks=[StopAt(7)])
    assert stopped.interrupted
    assert stopped.scores == {}
    assert not (stopped.run / "model.pt").exists()
    assert "was not finished. Use --resume to go on" in told(CheckpointError, fit, spec(), runs)
    assert "is not finished, so it has no model yet" in told(CheckpointError, qprune.load, stopped.run)
    resumed = fit(spec(), runs, resume=True)
    assert not resumed.interrupted
    assert resumed.scores == dense.scores
    before, after = (load_checkpoint(path / "tiny/dense/model.pt")["state"] for path in (root, runs))
    assert all(torch.equal(before[key], after[key]) for key in before)


SCHEDULES = {
    "one-shot": {"kind": "one-shot", "at": 3},
    "stepwise": {"kind": "stepwise", "start": 2, "every": 2, "times": 3},
    "layerwise": LAYERWISE,
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_sparsity_and_bits_per_path_go_through_every_command_and_resume(runs, kind):
    def tables(sparsity, name="tiny/tables"):
        prune = {"sites": ACTS, "sparsity": sparsity, "schedule": SCHEDULES[kind]}
        quantize = {"sites": WEIGHTS, "bits": {"classifier": 8, "conv*": 3}, "per": "channel", "start": 8}
        return spec(name, prune=[prune], quantize=[quantize])

    mine = tables({"act1": 0.7, "*": 0.25})
    plan = qprune.plan(mine)
    assert {site.site: site.kept or site.bits for site in plan.sites} == {
        "act1.output": 2, "act2.output": 6, "conv1.weight": 3, "conv2.weight": 3, "classifier.weight": 8,
    }  # fmt: skip
    assert fit(mine, runs, callbacks=[StopAt(5)]).interrupted
    line = told(CheckpointError, fit, tables({"act1": 0.7, "*": 0.5}), runs, resume=True)
    assert "prune.0.sparsity.* was 0.25 and is 0.5 now" in line
    resumed = fit(tables({"*": 0.25, "act1": 0.7}), runs, resume=True)  # in whatever order they are written
    whole = fit(tables({"act1": 0.7, "*": 0.25}, "tiny/whole"), runs)
    one, other = (load_checkpoint(history.run / "model.pt")["state"] for history in (resumed, whole))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert fit(resumed.run / "spec.toml", runs, overwrite=True).scores == whole.scores
    rows = {row.path: row for row in qprune.summary(qprune.load(whole.run), input_size=(1, 8, 8)).layers}
    assert [rows[path].weight_bits for path in ("conv1", "conv2", "classifier")] == [3, 3, 8]


FINISHES = {
    "one-shot": {"kind": "one-shot", "finish": "30%"},
    "stepwise": {"kind": "stepwise", "times": 3, "finish": "65%"},
    "layerwise": {"kind": "layerwise", "finish": "80%"},
}


@pytest.mark.parametrize("shrink", ["never", "as-frozen"])
@pytest.mark.parametrize("kind", FINISHES)
def test_pruning_that_is_over_by_a_share_of_the_run_resumes_exactly(runs, kind, shrink, monkeypatch):
    monkeypatch.setattr(shrinking, "COST", 0.01)  # so that every cut pays at once

    def half(name, schedule):
        tables = spec(name, prune=[{"sites": ACTS, "sparsity": 0.5, "schedule": schedule}])
        return tables | {"train": tables["train"] | {"shrink": shrink, "accumulate": 2}}

    whole = fit(half("tiny/whole", FINISHES[kind]), runs)
    assert fit(half("tiny/finished", FINISHES[kind]), runs, callbacks=[StopAt(5)]).interrupted
    resumed = fit(half("tiny/finished", FINISHES[kind]), runs, resume=True)
    states = [load_checkpoint(history.run / "model.pt")["state"] for history in (resumed, whole)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    moments = {  # of 10 steps
        "one-shot": {"at": 3},
        "stepwise": {"start": 2, "every": 2},
        "layerwise": {"start": 0, "interval": 3, "refresh": 1},
    }
    explicit = {key: value for key, value in FINISHES[kind].items() if key != "finish"} | moments[kind]
    same = fit(half("tiny/explicit", explicit), runs)
    assert same.scores == whole.scores
    plan = qprune.plan(half("tiny/whole", FINISHES[kind]))
    assert plan.pruned_by == {"one-shot": 3, "stepwise": 6, "layerwise": 8}[kind]
    assert plan.notes[0].startswith(f'finish = "{FINISHES[kind]["finish"]}" is step ')


def residual(name, shrink="never", quantize=(), **rule):
    """A tiny PreActResNet on digits, whose sums no rule masks: what makes them follows."""
    rule = {
        "sites": ACTS,
        "couple": True,
        "sparsity": 0.5,
        "schedule": LAYERWISE | {"interval": 1, "refresh": 1},
    } | rule
    table = spec(name, prune=[rule], quantize=list(quantize)) | {"model": {"arch": "preactresnet18", "width": 0.06}}
    table["train"] = table["train"] | {"length": "8ep", "shrink": shrink}
    return table


@pytest.mark.parametrize("shrink", ["never", "as-frozen"])
def test_coupled_masks_resume_exactly_and_leave_nothing_to_gather(runs, shrink, monkeypatch):
    monkeypatch.setattr(shrinking, "COST", 0.01)  # so that every cut pays at once
    whole = fit(residual("tiny/whole", shrink), runs)
    for step in (4, 20):  # while masks are chosen
        assert fit(residual("tiny/halted", shrink), runs, callbacks=[StopAt(step)], resume=True).interrupted
    resumed = fit(residual("tiny/halted", shrink), runs, resume=True)
    one, other = (load_checkpoint(history.run / "model.pt")["state"] for history in (resumed, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    trained = qprune.load(whole.run)
    assert any(site.mask is not None for site in sites(trained)) == (shrink == "never")
    net = qprune.shrink(trained, images())
    assert not [path for path, layer in net.named_modules() if isinstance(layer, Aligned)]
    widths = [net.get_submodule(f"stage{stage}.1.conv2").out_channels for stage in (1, 2, 3, 4)]
    assert widths == [2, 4, 8, 15]
    rows = {row.path: row for row in qprune.summary(qprune.load(whole.run), input_size=(1, 8, 8)).layers}
    assert rows["stage4.1.conv2"].channels_out_kept == 15


@pytest.mark.parametrize("hooked", ["stage1.0.conv2", pytest.param("stage1.0.norm2", marks=pytest.mark.slow)])
def test_a_mask_that_a_hook_holds_outlives_the_one_that_it_follows(runs, hooked, monkeypatch):
    monkeypatch.setattr(shrinking, "COST", 0.01)
    net, seen = qprune.zoo.create("preactresnet18", width=0.06, classes=10, in_channels=1), []
    net.get_submodule(hooked).register_forward_hook(lambda *_: seen.append(1))
    weights = [{"types": ["Conv2d"], "at": "weight"}]
    mine = residual("tiny/hooked", "as-frozen", sites=weights, importance="weight-l1")
    del mine["model"]
    history = fit(mine, runs, model=net)
    small = qprune.shrink(qprune.load(history.run), images())
    assert [small.get_submodule(f"stage{stage}.1.conv2").out_channels for stage in (1, 2, 3, 4)] == [2, 4, 8, 15]
    assert seen


def test_coupled_masks_are_inherited_with_what_follows_them(runs):
    fit(residual("tiny/pruned"), runs)
    quantize = [{"sites": WEIGHTS, "bits": 4, "per": "channel", "start": 4}]
    inherited = {"schedule": {"kind": "inherited"}}
    joint = residual("tiny/joint", quantize=quantize) | {"init": "tiny/pruned"}
    joint["prune"] = [{"sites": ACTS, "couple": True} | inherited]
    net = qprune.load(fit(joint, runs).run)
    before = qprune.load(runs / "tiny/pruned")
    keeps = [{site.name: site.mask.keep for site in sites(each) if site.mask is not None} for each in (before, net)]
    assert keeps[0].keys() == keeps[1].keys()
    assert all(torch.equal(keeps[0][name], keeps[1][name]) for name in keeps[0])
    assert {"stage1.0.conv2.output", "stage2.0.shortcut.output"} < keeps[0].keys()
    joint["prune"] = [{"sites": ACTS} | inherited]
    line = told(CheckpointError, fit, joint | {"name": "tiny/apart"}, runs)
    assert (
        'tiny/pruned has masks or quantizers at 11 sites where this network has none, "stage1.0.conv2.output"' in line
    )


def test_resume_completes_the_report_of_a_finished_run(runs):
    history = fit(spec(), runs)
    report = history.run / "report.json"
    text = report.read_text()
    report.unlink()
    fit(spec(), runs, resume=True)
    assert report.read_text() == text


def test_resume_of_a_run_that_is_not_there_begins_it(runs):
    assert fit(spec(), runs, resume=True, overrides=["train.length=1it"]).history["step"] == [1]


# load, evaluate, predict, summary


def test_load_needs_only_the_run_folder_and_another_process(trained, tmp_path):
    root, _ = trained
    run = shutil.copytree(root / "tiny/joint", tmp_path / "alone")
    torch.save(images(), tmp_path / "images.pt")
    code = (
        "import torch, qprune; net = qprune.load('alone'); assert not any(m.training for m in net.modules()); "
        "torch.save(net(torch.load('images.pt')), 'outputs.pt')"
    )
    assert forked.run("-c", code, folder=tmp_path).returncode == 0
    assert torch.load(run / "model.pt", weights_only=True)["classes"] == [str(digit) for digit in range(10)]
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), qprune.load("tiny/joint", runs=root)(images()))


def test_a_loaded_network_is_masked_and_quantized(trained):
    root, _ = trained
    net = qprune.load(root / "tiny/joint")
    assert not any(module.training for module in net.modules())
    masks = [site.mask for site in sites(net) if site.mask is not None]
    assert [int(mask.keep.sum()) for mask in masks] == [3, 4]
    assert all(bool(site.quant.active) for site in sites(net) if site.quant is not None)
    assert net.conv1.int_weight()[0].abs().max() <= 7


def test_load_takes_a_model_file_a_folder_or_a_name(trained):
    root, _ = trained
    expected = qprune.load(root / "tiny/dense")(images())
    for run in (root / "tiny/dense/model.pt", str(root / "tiny/dense"), "tiny/dense"):
        assert torch.equal(qprune.load(run, runs=root)(images()), expected)


def test_loading_what_is_not_there_names_the_nearest(trained):
    root, _ = trained
    message = told(CheckpointError, qprune.load, "tiny/dens", runs=root)
    assert "There is no run tiny/dens" in message
    assert "Nearest: tiny/dense" in message


def test_loading_last_pt_says_what_to_load(trained):
    root, _ = trained
    message = told(CheckpointError, qprune.load, root / "tiny/dense/last.pt")
    assert "holds no trained model; give the run's folder or its model.pt." in message


@pytest.mark.parametrize("name", ["tiny/dense", "tiny/joint"])
def test_evaluate_repeats_the_scores_of_the_report(trained, name):
    root, _ = trained
    scores = json.loads((root / name / "report.json").read_text())["scores"]
    assert qprune.evaluate(root / name) == scores["test"]
    assert qprune.evaluate(name, split="val", runs=root) == scores["val"]


def test_evaluate_on_the_training_images(trained):
    root, _ = trained
    assert qprune.evaluate(root / "tiny/dense", split="train").keys() == {"loss", "accuracy", "top5"}


def test_evaluate_without_such_a_split(runs):
    data = {"train": own_data()["train"]}
    history = fit(spec(), runs, data=data)
    assert not (history.run / "best.pt").exists()
    assert told(DataError, qprune.evaluate, history.run, split="val", data=data) == 'The data has no "val" split.'


def test_predict_takes_a_single_layer_whose_stride_is_its_own():
    layer, images = nn.Conv2d(3, 4, 3, stride=2), torch.randn(2, 3, 7, 9)
    assert torch.equal(qprune.predict(layer, images), layer(images))


def test_predict_gives_the_outputs_in_eval_mode_and_restores_each_mode(trained):
    root, _ = trained
    net = qprune.load(root / "tiny/joint")
    expected = net(images())
    net.train()
    net.act2.eval()
    state = deepcopy(net.state_dict())
    outputs = qprune.predict(net, images(), batch=3)
    torch.testing.assert_close(outputs, expected)
    assert not outputs.requires_grad
    assert net.training and net.conv1.training and not net.act2.training  # noqa: PT018
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


def test_predict_takes_a_run_and_an_empty_batch(trained):
    root, _ = trained
    assert qprune.predict("tiny/dense", images(2), runs=root).shape == (2, 10)
    assert qprune.predict(root / "tiny/dense", images(0)).shape == (0, 10)


def test_predict_restores_the_modes_after_an_error(trained):
    root, _ = trained
    net = qprune.load(root / "tiny/dense").train()
    with pytest.raises(RuntimeError):
        qprune.predict(net, torch.zeros(2, 3, 8, 8))
    assert net.training


def test_summary_of_a_run_and_of_a_network_agree(trained):
    root, _ = trained
    of_run = qprune.summary("tiny/joint", runs=root, metric=0.9)
    of_net = qprune.summary(qprune.load(root / "tiny/joint"), input_size=(1, 8, 8), metric=0.9)
    assert of_run.to_dict() == of_net.to_dict()
    assert "conv1" in str(of_run)
    parameters = sum(p.numel() for p in qprune.load(root / "tiny/joint").parameters())
    assert of_run.to_dict()["total"]["parameters"] == parameters


def test_summary_of_a_dense_network_of_ones_own():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    assert qprune.summary(net).to_dict()["total"]["parameters"] == 3 * 5 * 9 + 5


# plan and build


def test_plan_is_a_time_line_with_costs():
    plan = qprune.plan(pruned())
    assert (plan.steps, plan.steps_per_epoch, plan.finished_by) == (10, 5, 8)
    assert [(site.site, site.kept, site.channels) for site in plan.sites] == [
        ("act1.output", 3, 6),
        ("act2.output", 4, 8),
    ]
    dense = 6 * 9 + 6 + 8 * 54 + 8 + 10 * 128 + 10
    kept = 3 * 9 + 3 + 4 * 27 + 4 + 10 * 64 + 10
    assert plan.cost["parameters"] == f"{dense:,} -> {kept:,}"
    assert "act2.output: 4 of 8 channels kept" in str(plan)


def test_plan_counts_what_the_run_that_it_starts_from_has_pruned(trained):
    root, histories = trained
    costs = json.loads((histories[2].run / "report.json").read_text())["costs"]
    plan = qprune.plan(joint(), runs=root)
    assert plan.cost["parameters"] == f"{costs['parameters']:,} -> {costs['parameters_kept']:,}"
    assert costs["parameters_kept"] < costs["parameters"] / 2


def test_plan_counts_what_a_run_dropped_that_was_cut_while_it_trained(trained, tmp_path):
    dense = {"init": str(trained[0] / "tiny/dense")}
    run = fit(pruned(**dense), tmp_path, overrides={"train.shrink": "as-frozen"}).run
    costs = json.loads((run / "report.json").read_text())["costs"]
    plan = qprune.plan(joint(), runs=tmp_path)
    assert plan.cost["parameters"] == f"{costs['parameters']:,} -> {costs['parameters_kept']:,}"


def test_plan_counts_what_is_yet_to_be_pruned_before(shelf):
    before = qprune.plan("tiny/pruned")
    plan = qprune.plan("tiny/joint", runs=shelf)
    assert plan.cost["parameters"] == before.cost["parameters"]
    assert not shelf.exists()


def test_plan_of_a_chain_counts_costs_of_its_last_run_alone(shelf, monkeypatch):
    counted = []
    monkeypatch.setattr(planning, "forecast", lambda *now_and_later: counted.append(now_and_later) or {"MACs": "few"})
    assert qprune.plan("tiny/joint", runs=shelf).cost == {"MACs": "few"}
    assert len(counted) == 1


def test_plan_says_where_nobody_knows_what_was_pruned_before(runs):
    plan = qprune.plan(joint(init="tiny/gone"), runs=runs)
    assert plan.notes[-1].startswith("what tiny/gone prunes is not known and does not count: No spec is named")
    assert str(plan).endswith(f"note: {plan.notes[-1]}")


def test_plan_refuses_a_run_of_another_network_to_start_from(trained):
    wider = spec()["model"]
    wider["layers"][0]["out_channels"] = 7
    assert "tiny/pruned is of another network" in told(
        CheckpointError, qprune.plan, joint(model=wider), runs=trained[0]
    )


def test_plan_takes_overrides_and_an_epoch_of_another_length():
    plan = qprune.plan(pruned(), steps_per_epoch=7, overrides={"prune.0.sparsity": "0.25"})
    assert (plan.steps, [site.kept for site in plan.sites]) == (14, [5, 6])


def test_plan_takes_the_folder_of_the_data(tmp_path):
    for index in range(30):
        file = tmp_path / f"train/{'abcdefghij'[index % 10]}/{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 5, 9)).save(file)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    source = spec(data={"name": "folder", "size": 8, "validation": 0.0})
    assert qprune.plan(source, data=tmp_path).steps_per_epoch == 1
    assert "nowhere" in told(DataError, qprune.plan, source, data=tmp_path / "nowhere")


def test_build_is_reproducible_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    first, second = qprune.build(joint()).state_dict(), qprune.build(joint()).state_dict()
    qprune.plan(pruned())
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = qprune.build(spec(seed=1)).state_dict()
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_build_is_the_network_that_fit_starts_from(runs):
    class Keep(Callback):
        def on_train_begin(self, logs):
            self.state = deepcopy(self.trainer.net.state_dict())

    keep = Keep()
    fit(pruned(init=None), runs, callbacks=[keep])
    built = qprune.build(pruned()).state_dict()
    assert built.keys() == keep.state.keys()
    assert all(torch.equal(built[key], keep.state[key]) for key in built)


# own network, own data, own task


def own_data():
    splits = load_data(DataSpec("digits", train_images=96), seed=0)
    return {"train": splits.train, "val": splits.val, "test": splits.test}


def own_net():
    torch.manual_seed(5)
    second = PrunedConv2d(6, 4, 3, schedule=OneShot(sparsity=0.5, at=4))
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), second, nn.Flatten(), nn.Linear(4 * 16, 10))


class Regression:
    """Says how much ink a scan has, in place of which digit it is."""

    monitor, mode = "error", "min"

    def loss(self, output, target):
        return nn.functional.mse_loss(output[:, 0], target.float())

    def step(self, net, batch):
        output = net(batch[0])
        return self.loss(output, batch[1]), output

    def metrics(self):
        class Error(torchmetrics.MeanAbsoluteError):
            def update(self, output, target):
                super().update(output[:, 0].contiguous(), target.float())

        return torchmetrics.MetricCollection({"error": Error()})


def test_fit_with_datasets_of_ones_own(runs):
    history = fit(spec(), runs, data=own_data())
    assert history.history["step"] == [3, 6]
    assert qprune.evaluate(history.run, data=own_data()) == history.scores["test"]


def test_fit_with_loaders_of_ones_own(runs):
    loader = DataLoader(TensorDataset(images(40), torch.arange(40) % 10), batch_size=8)
    history = fit(spec(), runs, data={"train": loader})
    assert history.history["step"] == [5, 10]
    assert history.scores == {}
    assert qprune.load(history.run)(images(2)).shape == (2, 10)


def test_a_loader_without_a_length_is_refused(runs):
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield images(1)[0], 3

    data = {"train": DataLoader(Endless(), batch_size=8)}
    assert 'data["train"] must know how many batches it has' in told(DataError, fit, spec(), runs, data=data)


def test_fit_with_a_network_of_ones_own(runs):
    history = fit(spec(), runs, model=own_net())
    assert [(event["site"], event["step"]) for event in history.events] == [("2.input", 4)]
    loaded = qprune.load(history.run, model=own_net())
    assert not loaded.training
    assert qprune.evaluate(history.run, model=own_net()) == history.scores["test"]
    alone, some = qprune.load(history.run), images(3)  # from its graph, without any of its code
    torch.testing.assert_close(alone(some), loaded(some))
    assert qprune.evaluate(history.run) == history.scores["test"]


def test_fit_cuts_a_network_of_ones_own_while_it_trains(runs):
    longer = {"train.length": "40it", "train.shrink": "as-frozen"}
    history = fit(spec(), runs, model=own_net(), overrides=longer)
    small, alone = qprune.load(history.run, model=own_net()), qprune.load(history.run)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in own_net().parameters())
    some = images(3)
    torch.testing.assert_close(alone(some), small(some))


def test_a_network_of_ones_own_that_cannot_be_followed_needs_its_code(runs, caplog):
    class Undecided(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = own_net()

        def forward(self, x):
            return self.net(x) + 0 * torch.fft.rfft(x.flatten(1)).abs().mean()  # on no list of what files may hold

    said = {}
    watch = LambdaCallback(on_train_begin=lambda logs: said.update(begin=caplog.text))
    history = fit(spec(), runs, model=Undecided(), callbacks=[watch])
    assert "The run tiny/dense is opened with the network's code only, model=: Undecided cannot" in said["begin"]
    assert caplog.text.count("Undecided cannot") == said["begin"].count("Undecided cannot") == 1  # and not after hours
    message = told(CheckpointError, qprune.load, history.run)
    assert "is of a network of the user's own, whose code is needed" in message
    assert "Hand the network over, as it was before training: model=." in message
    loaded = qprune.load(history.run, model=Undecided())
    assert qprune.evaluate(history.run, model=Undecided()) == history.scores["test"]
    assert isinstance(loaded, Undecided)


def test_fit_with_network_data_and_task_of_ones_own(runs):
    slow = ["train.optimizer.lr=0.001"]
    history = fit(spec(), runs, model=own_net(), data=own_data(), task=Regression(), overrides=slow)
    assert history.history.keys() >= {"error", "val_error"}
    assert history.scores["test"].keys() == {"loss", "error"}
    again = qprune.evaluate(history.run, model=own_net(), data=own_data(), task=Regression())
    assert again == history.scores["test"]


def test_data_in_another_form_is_refused(runs):
    assert 'data has the keys "train", "val" and "test"' in told(DataError, fit, spec(), runs, data={"trian": 1})
    assert not runs.exists()


# init, seeds, chains


def test_init_takes_over_weights_and_masks(trained):
    root, _ = trained
    before, after = (load_checkpoint(root / f"tiny/{name}/model.pt")["state"] for name in ("pruned", "joint"))
    assert torch.equal(before["act2.output_mask.keep"], after["act2.output_mask.keep"])
    assert json.loads((root / "tiny/joint/report.json").read_text())["init"] == "tiny/pruned"


def test_init_that_is_not_there(runs):
    assert "There is no run tiny/dense" in told(CheckpointError, fit, pruned(), runs)
    assert not runs.exists()


def test_masks_of_init_need_a_rule(trained, tmp_path):
    root, _ = trained
    message = told(CheckpointError, fit, joint(prune=[]), root, name="other")
    assert 'tiny/pruned has masks or quantizers at 2 sites where this network has none, "act1.output" first.' in message
    assert 'schedule = { kind = "inherited" }' in message


def test_inherited_masks_must_be_there(trained):
    root, _ = trained
    message = told(PlanError, fit, joint(init="tiny/dense"), root, name="other")
    assert "act1.output inherits its mask, but the mask drops nothing: load a pruned network first" in message


def test_init_of_another_network_names_the_difference(trained):
    root, _ = trained
    other = spec(init="tiny/dense")
    other["model"]["layers"][0]["out_channels"] = 7
    message = told(CheckpointError, fit, other, root, name="other")
    assert "tiny/dense is of another network: of another shape: conv1.weight, conv1.bias, conv2.weight." in message


def test_a_seed_names_its_run_and_init_looks_there_first(trained, tmp_path):
    root = shutil.copytree(trained[0], tmp_path / "runs")
    short = {"overrides": ["train.length=2ep"]}
    assert fit(pruned(), root, seed=3, **short).run == root / "tiny/pruned@seed3"
    assert 'init = "tiny/dense"' in (root / "tiny/pruned@seed3/spec.toml").read_text()
    fit(spec(), root, seed=4)
    fit(pruned(), root, seed=4, **short)
    table = tomllib.loads((root / "tiny/pruned@seed4/spec.toml").read_text())
    assert (table["init"], table["seed"], table["name"]) == ("tiny/dense@seed4", 4, "tiny/pruned@seed4")


def test_a_run_of_another_seed_to_start_from_is_said(trained, tmp_path, caplog):
    root = tmp_path / "runs"
    shutil.copytree(trained[0] / "tiny/dense", root / "tiny/dense")
    fit(pruned(), root, seed=9)
    assert caplog.messages == [
        "tiny/dense@seed9 is not trained, so tiny/pruned@seed9 starts from tiny/dense, whose seed is another; with "
        "--chain (chain=True) it would be trained first."
    ]


def test_another_seed_is_another_result(trained, tmp_path):
    _, (dense, *_) = trained
    assert fit(spec(), tmp_path, seed=1).history["loss"] != dense.history["loss"]


def test_chain_trains_what_is_missing_and_only_that(shelf):
    dense = fit("tiny/dense", shelf).run / "model.pt"
    written = dense.stat().st_mtime_ns
    fit("tiny/joint", shelf, chain=True)
    assert dense.stat().st_mtime_ns == written
    assert [row["name"] for row in chain_of("tiny/joint", shelf)] == ["tiny/dense", "tiny/pruned", "tiny/joint"]


def test_chain_carries_the_seed(shelf):
    fit("tiny/pruned", shelf, chain=True, seed=2)
    assert sorted(path.name for path in (shelf / "tiny").iterdir()) == ["dense@seed2", "pruned@seed2"]
    assert [row["name"] for row in chain_of("tiny/pruned@seed2", shelf)] == ["tiny/dense@seed2", "tiny/pruned@seed2"]


def test_a_seed_written_in_init_is_trained_with_that_seed(shelf):
    fit(pruned(init="tiny/dense@seed5"), shelf, chain=True)
    assert tomllib.loads((shelf / "tiny/dense@seed5/spec.toml").read_text())["seed"] == 5


def test_a_chain_that_cannot_work_at_its_end_trains_nothing(shelf):
    message = told(PlanError, fit, "tiny/joint", shelf, chain=True, overrides=["quantize.0.start=99"])
    assert "conv1.weight: quantization starts at step 99" in message
    assert message.endswith("(specs/tiny/joint.toml).")
    assert not shelf.exists()


def test_a_chain_whose_last_run_is_there_trains_nothing(shelf):
    fit(pruned(init=None), shelf)
    assert "holds a finished run" in told(CheckpointError, fit, "tiny/pruned", shelf, chain=True)
    assert [path.name for path in (shelf / "tiny").iterdir()] == ["pruned"]


def test_an_interrupted_chain_stops_there_and_goes_on(shelf, monkeypatch):
    trains = api.train
    monkeypatch.setattr(api, "train", lambda *a, callbacks=(), **k: trains(*a, callbacks=[*callbacks, StopAt(6)], **k))
    history = fit("tiny/pruned", shelf, chain=True)
    assert (history.interrupted, history.run) == (True, shelf / "tiny/dense")
    assert not (shelf / "tiny/pruned").exists()
    monkeypatch.setattr(api, "train", trains)
    assert fit("tiny/pruned", shelf, chain=True, resume=True).run == shelf / "tiny/pruned"


def test_a_resumed_chain_scores_the_run_that_was_killed_before_its_report(shelf):
    fit("tiny/pruned", shelf, chain=True)
    report = shelf / "tiny/dense/report.json"
    text = report.read_text()
    report.unlink()
    assert "holds a finished run" in told(CheckpointError, fit, "tiny/pruned", shelf, chain=True)
    assert not report.exists()
    fit("tiny/pruned", shelf, chain=True, resume=True)
    assert report.read_text() == text
    assert [row["name"] for row in chain_of("tiny/pruned", shelf)] == ["tiny/dense", "tiny/pruned"]


def test_an_init_that_leads_back_to_itself_is_refused(shelf):
    Path("specs/tiny/dense.toml").write_text('init = "tiny/joint"\n' + Path("specs/tiny/dense.toml").read_text())
    message = told(SpecError, fit, "tiny/joint", shelf, chain=True)
    assert message == "init goes in a circle: tiny/joint -> tiny/pruned -> tiny/dense -> tiny/joint."
    assert not shelf.exists()


def test_a_chain_needs_the_whole_name(shelf):
    message = told(SpecError, fit, pruned(init="dense"), shelf, chain=True)
    assert message == 'init must be the whole name of a run; received "dense", did you mean "tiny/dense"?'


def test_a_run_trained_anew_from_its_successor_still_has_a_chain(runs):
    fit(spec(), runs)
    fit(spec("tiny/next", init="tiny/dense"), runs)
    fit(spec(init="tiny/next"), runs, overwrite=True)
    assert [row["name"] for row in chain_of("tiny/dense", runs)] == ["tiny/next", "tiny/dense"]


# swap and to_dense


def test_swap_takes_rules_as_tables():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    rule = {"sites": [{"types": ["ReLU"], "at": "output"}], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 2}}
    weights = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": 0}
    example = torch.randn(2, 3, 7, 9)
    swapped = qprune.swap(net, example, prune=[rule], quantize=[weights])
    swapped.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(swapped(example), net(example))
    assert isinstance(swapped[1].output_mask, ChannelMask)
    assert isinstance(swapped[2].weight_quant, FakeQuant)
    assert type(net[0]) is nn.Conv2d


def test_swap_names_the_mistakes_of_its_rules():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3))
    schedule = {"kind": "one-shot", "at": 2}
    wrong = {"sites": [{"types": ["Conv2d"], "at": "inptu"}], "sparsity": 1.5, "schedule": schedule}
    lines = told(SpecError, qprune.swap, net, torch.zeros(1, 3, 7, 9), prune=[wrong]).splitlines()
    assert len(lines) == 2
    assert any('"inptu"' in line and "prune[0].sites[0].at" in line for line in lines)
    assert any("sparsity must be in [0, 1); received 1.5" in line for line in lines)


def test_to_dense_gives_plain_layers_with_equal_outputs(trained):
    root, _ = trained
    net = qprune.load(root / "tiny/pruned")
    dense = qprune.to_dense(net)
    torch.testing.assert_close(dense(images()), net(images()))
    assert not list(sites(dense))
    assert type(dense.conv1) is nn.Conv2d


def test_a_spec_value_is_as_good_as_a_table(runs):
    value = evolve(read_spec(spec()), name="value")
    assert fit(value, runs, overrides=["train.length=1it"]).run == runs / "value"


# the cost of an import


def test_import_adds_little_to_that_of_torch():
    code = "import time; import torch; began = time.process_time(); import qprune; print(time.process_time() - began)"
    command = [sys.executable, "-c", code]
    taken = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    assert statistics.median(taken) < 1.5
