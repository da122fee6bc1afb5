"""What every importance promises, whichever it is."""

import copy
import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

import qprune
from qprune.functional import keep_top
from qprune.importances import IMPORTANCES, Measured, Scored, fitting
from qprune.layers import ChannelMask, CompressedBatchNorm2d, CompressedConv2d, CompressedReLU, sites
from qprune.schedules import OneShot
from qprune.spec import PruneRule, Selector
from qprune.training import Callback, ScheduleDriver

ROOT = Path(__file__).parents[2]
SIDES = ("input", "weight", "output")
EACH = pytest.mark.parametrize("word", IMPORTANCES)
CASES = [(word, side) for side in SIDES for word in fitting(side)]
EACH_PLACE = pytest.mark.parametrize(("word", "side"), CASES)


def host(word, side):
    """A layer of 6 channels at ``side`` that can be ranked so."""
    layers = (CompressedConv2d(6, 6, 3, padding=1), CompressedBatchNorm2d(6), CompressedReLU())
    return next(layer for layer in layers if side in layer.sides and not IMPORTANCES[word].problem(layer))


def masked(word, side, schedule=None):
    torch.manual_seed(1)
    layer = host(word, side)
    layer.add_mask(side, importance=word, schedule=schedule or OneShot(0.5, at=2, measure=2))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return nn.Sequential(nn.Conv2d(3, 6, 1), layer, nn.Conv2d(6, 2, 1))


def train(net, driver, steps=2, parts=1, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for part in torch.randn(4, 3, 5, 7, generator=generator).chunk(parts):
            (net(part).square().sum() / (4 * 5 * 7)).backward()
        driver.step()


def the_mask(net):
    return next(site.mask for site in sites(net))


@EACH
def test_it_is_either_measured_or_scored_or_follows(word):
    importance = IMPORTANCES[word]
    assert [isinstance(importance, Measured), isinstance(importance, Scored), importance.follows].count(True) == 1
    assert set(importance.sides) <= set(SIDES)
    assert bool(importance.sides) != importance.follows


@EACH
def test_it_is_a_value_that_can_be_compared_copied_and_pickled(word):
    importance = IMPORTANCES[word]
    assert copy.deepcopy(importance) == pickle.loads(pickle.dumps(importance)) == importance == type(importance)()


@EACH
def test_it_has_a_file_of_its_own_and_a_word_on_the_page_about_specs(word):
    assert Path(inspect.getfile(type(IMPORTANCES[word]))).stem == word.replace("-", "_")
    page = (ROOT / "docs/reference/specs.md").read_text(encoding="utf-8")
    assert (f"\n- `{word}` (" in page) == bool(IMPORTANCES[word].sides)


@EACH
@pytest.mark.parametrize("side", SIDES)
def test_rules_take_it_where_it_may_stand_and_nowhere_else(word, side):
    selector = Selector(("Conv2d",), at=side)
    if side in IMPORTANCES[word].sides:
        assert PruneRule([selector], OneShot(0.5, 3), word).importance == word
    else:
        with pytest.raises(ValueError, match="importance must be"):
            PruneRule([selector], OneShot(0.5, 3), word)


@EACH_PLACE
def test_a_mask_keeps_the_channels_that_the_driver_ranks_highest(word, side):
    net = masked(word, side)
    train(net, ScheduleDriver(net))
    mask = the_mask(net)
    assert mask.score.isfinite().all()
    assert len(mask.score.unique()) > 1
    assert torch.equal(mask.keep, keep_top(mask.score, 0.5))
    assert mask.keep.sum() == 3
    assert bool(mask.seen) == isinstance(IMPORTANCES[word], Measured)


@EACH_PLACE
def test_parts_of_a_batch_choose_as_the_whole_batch(word, side):
    if word == "bn-scale":
        pytest.skip("a batch normalization normalizes each part by itself")
    whole, parts = masked(word, side), masked(word, side)
    train(whole, ScheduleDriver(whole))
    train(parts, ScheduleDriver(parts), parts=2)
    torch.testing.assert_close(the_mask(parts).score, the_mask(whole).score)
    assert torch.equal(the_mask(parts).keep, the_mask(whole).keep)


@EACH_PLACE
def test_a_mask_that_does_not_measure_costs_the_training_nothing(word, side):
    net, x = masked(word, side), torch.randn(2, 3, 5, 7)
    silent, mask = copy.deepcopy(net), the_mask(net)
    the_mask(silent).measuring = False
    for each in (net, silent):
        each.train()(x).square().sum().backward()
    for ours, plain in zip(net.parameters(), silent.parameters(), strict=True):
        assert torch.equal(ours.grad, plain.grad)
    y = mask(torch.randn(6, 6, 5, 7, requires_grad=True))
    assert not y._backward_hooks
    assert mask.pending_count == 0


@EACH_PLACE
def test_measuring_leaves_outputs_and_gradients_as_they_are(word, side):
    net, x = masked(word, side).train(), torch.randn(2, 3, 5, 7)
    silent = copy.deepcopy(net)
    the_mask(net).measuring = True
    results = [each(x) for each in (net, silent)]
    for result in results:
        result.square().sum().backward()
    assert torch.equal(*results)
    for ours, plain in zip(net.parameters(), silent.parameters(), strict=True):
        assert torch.equal(ours.grad, plain.grad)


@EACH_PLACE
def test_it_is_measured_or_scored_in_float32_under_autocast(word, side):
    net = masked(word, side).train()
    driver = ScheduleDriver(net)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(torch.randn(2, 3, 5, 7)).float().square().mean()
        loss.backward()
        driver.step()
    mask = the_mask(net)
    assert mask.score.dtype == torch.float32
    assert mask.keep.sum() == 3


@EACH_PLACE
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's, at a graph break
def test_a_compiled_network_ranks_as_it_does_uncompiled(word, side):
    torch._dynamo.reset()
    plain, net = masked(word, side), masked(word, side)
    train(plain, ScheduleDriver(plain))
    driver, view = ScheduleDriver(net, measure_all=True), torch.compile(net, backend="aot_eager", dynamic=False)
    train(view, driver)
    torch._dynamo.reset()
    torch.testing.assert_close(the_mask(net).score, the_mask(plain).score)
    assert torch.equal(the_mask(net).keep, the_mask(plain).keep)
    assert the_mask(net).seen == the_mask(plain).seen


@EACH
def test_a_mask_shows_it_and_saves_no_key_for_it(word):
    mask = ChannelMask(3, importance=word)
    assert mask.ranking is IMPORTANCES[word]
    assert f"importance={word!r}" in repr(mask)
    assert sorted(mask.state_dict()) == ["keep", "score", "seen"]


NORMS = ["BatchNorm2d"]
PRUNING = {"kind": "stepwise", "start": 2, "every": 2, "times": 2}


class CtrlC(Callback):
    """Sends the signal of Ctrl-C in the middle of the fourth step."""

    def on_train_batch_begin(self, batch, logs):
        if self.trainer.step == 3:
            os.kill(os.getpid(), signal.SIGINT)


def spec_of(word, side, train=()):
    """Eight steps on 256 digits, in which channels are chosen twice."""
    layers = {"input": ["Conv2d"], "weight": ["Conv2d"], "output": ["ReLU"]}[side]
    sites = [{"types": NORMS if word == "bn-scale" else layers, "at": side, "skip": [0, -1]}]
    return {
        "name": "short",
        "data": {"name": "digits", "train_images": 256},
        "model": tomllib.loads((ROOT / "specs/base/digits.toml").read_text(encoding="utf-8"))["model"],
        "train": {"length": 8, "batch": 64, "optimizer": {"name": "sgd", "lr": 0.05}} | dict(train),
        "prune": [{"sites": sites, "sparsity": 0.5, "importance": word, "schedule": PRUNING}],
    }


def fitted(runs, word, side, train=(), **options):
    """History and model of a training of `spec_of`; no model where it was interrupted."""
    history = qprune.fit(spec_of(word, side, train), runs=runs, verbose=0, device="cpu", **options)
    return history, torch.load(runs / "short/model.pt", weights_only=True) if not history.interrupted else None


@EACH_PLACE
def test_a_short_training_prunes_and_resumes_to_the_same_bits(word, side, tmp_path):
    _, whole = fitted(tmp_path / "whole", word, side)
    assert fitted(tmp_path / "broken", word, side, callbacks=[CtrlC()])[0].interrupted
    _, resumed = fitted(tmp_path / "broken", word, side, resume=True)
    assert whole["state"].keys() == resumed["state"].keys()
    assert all(torch.equal(value, resumed["state"][name]) for name, value in whole["state"].items())
    keeps = [value for name, value in whole["state"].items() if name.endswith("_mask.keep")]
    assert keeps
    assert all(2 * keep.sum() == len(keep) for keep in keeps)


@pytest.mark.parametrize(
    "train", [{"precision": "bfloat16", "accumulate": 2}, {"shrink": "as-frozen", "clip_norm": 1.0, "ema": 0.9}]
)
@pytest.mark.parametrize("side", IMPORTANCES["taylor"].sides)
def test_gradients_rank_channels_whatever_the_training(train, side, tmp_path):
    _, model = fitted(tmp_path, "taylor", side, train)
    assert all(value.isfinite().all() for value in model["state"].values() if value.is_floating_point())


def test_a_spec_whose_loss_is_scaled_is_refused_when_it_is_planned_and_trained(tmp_path):
    sentence = r'importance = "taylor".*use precision = "bfloat16"'
    with pytest.raises(qprune.PlanError, match=sentence):
        fitted(tmp_path, "taylor", "output", {"precision": "float16"})
    with pytest.raises(qprune.PlanError, match=sentence):
        qprune.plan(spec_of("taylor", "output", {"precision": "float16"}))


def test_the_first_that_fits_a_side_is_its_default():
    assert [fitting(side)[0] for side in SIDES] == ["activation-l1", "weight-l1", "activation-l1"]


def test_no_importance_needs_torch_at_import():
    path = ROOT / "qprune"
    code = (
        "import sys, types; room = types.ModuleType('qprune'); "
        f"room.__path__ = [{str(path)!r}]; sys.modules['qprune'] = room; "
        "import qprune.importances; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nobody_else_compares_the_words():
    """A word stands where it is registered, written by people or shown in an example, never after an ``==``."""
    words = "|".join(IMPORTANCES)
    pattern = re.compile(rf'(?:[!=]= *|in \(?)["\'](?:{words})|importance\.startswith|importance\[')
    found = [
        f"{path.name}: {line.strip()}"
        for path in (ROOT / "qprune").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert not found
