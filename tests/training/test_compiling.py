"""Compiled training: few graphs, however many masks freeze one by one, and the result of eager training."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import same
from few_streets import draw_few_streets
from torch import nn
from torch._dynamo.utils import counters

import qprune
from qprune.errors import PlanError
from qprune.layers import PrunedConv2d, PrunedQuantConv2d, sites
from qprune.schedules import Layerwise, QuantizeFrom
from qprune.spec import read_spec
from qprune.training import Callback, ModelCheckpoint, Shrinker, Trainer, experiment, prepare
from qprune.training.checkpoint import load
from qprune.training.compiling import compiled, graphs_compiled

MakeTrainer = Callable[..., Trainer]
# torch's own compiler takes a minute on two cores; this one takes the same graphs, and runs them as they are
QUICK = "aot_eager"
GAN = [
    "model.width=0.07", "model.width_ba=0.1", "model.width_discriminators=0.07", "data.size=32", "data.train_images=6",
    "train.batch=1", "train.length=18it", "train.validate_every=9it", 'train.lr_schedule={name="constant"}',
    'prune=[{sites=[{types=["Conv2d"], paths=["generator_*.blocks.1.*"], at="input"}], sparsity=0.5, '
    'schedule={kind="layerwise", start=1, interval=2, refresh=2}}]',
]  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be compiled is compiled quickly."""

    def make(*arguments: Any, compile: str | None, **options: Any) -> Trainer:
        return Trainer(*arguments, compile=compile and QUICK, **options)

    monkeypatch.setattr(experiment, "Trainer", make)


def net_with_quiet_steps(dropout: float = 0.2) -> nn.Module:
    """Two masks that freeze one by one, at 6 and 12, then quantizers that measure from 15 on and start at 18."""
    layerwise = Layerwise(sparsity=0.5, start=2, interval=5, refresh=2, order="registration")
    bits = {"weight_bits": 4, "act_bits": 4, "quant_schedule": QuantizeFrom(18, measure=3)}
    torch.manual_seed(7)
    return nn.Sequential(
        PrunedConv2d(1, 6, 3, padding=1, schedule=layerwise, at="output"),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        PrunedQuantConv2d(6, 8, 3, stride=2, padding=1, prune_schedule=layerwise, at="output", **bits),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
    )


def test_masks_that_freeze_one_by_one_need_two_graphs_for_each_batch_size(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(net_with_quiet_steps(), steps=25, compile=QUICK)
    events = trainer.fit().events
    assert [event["step"] for event in events] == [4, 6, 10, 12, 18, 18]
    assert graphs_compiled() == 2 * len({32, 22})
    assert not counters["graph_break"]


def test_compiled_training_equals_the_eager_one_to_the_bit(make_trainer: MakeTrainer) -> None:
    eager = make_trainer(net_with_quiet_steps(), steps=25)
    expected = eager.fit()
    trainer = make_trainer(net_with_quiet_steps(), steps=25, compile=QUICK)
    history = trainer.fit()
    assert same(trainer.net.state_dict(), eager.net.state_dict())
    assert same(history.history, expected.history)
    assert history.events == expected.events


def test_a_network_that_is_cut_while_it_trains_is_compiled_anew_after_each_cut(make_trainer: MakeTrainer) -> None:
    trainers = []
    for backend in (None, QUICK):
        trainer = make_trainer(net_with_quiet_steps(0), steps=25, compile=backend)
        assert trainer.driver is not None
        options: dict[str, Any] = {"example": torch.zeros(2, 1, 8, 8), "steps": 25, "compiled": backend is not None}
        trainer.shrinker = Shrinker(trainer.net, trainer.driver, trainer.optimizer, **options)
        trainer.shrinker.cost = 0
        trainer.fit()
        trainers.append(trainer)
    eager, quick = trainers
    assert same(quick.net.state_dict(), eager.net.state_dict())
    assert not any(site.mask for site in sites(quick.net))
    assert graphs_compiled() <= 2 * len({32, 22}) * len({"whole", "first cut", "second cut"})


def test_evaluation_compiles_nothing(make_trainer: MakeTrainer) -> None:
    often, once = (
        make_trainer(net_with_quiet_steps(), steps=25, validate_every=every, compile=QUICK) for every in (1, 25)
    )
    assert len(once.fit()) == 1
    graphs = graphs_compiled()
    torch._dynamo.reset()
    assert len(often.fit()) == 25
    assert graphs_compiled() == 2 * graphs


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"precision": "bfloat16"}, {"clip_norm": 0.5}], ids=str)
def test_compiled_parts_and_precisions_equal_the_eager_ones(make_trainer: MakeTrainer, options: dict[str, Any]) -> None:
    eager, quick = (make_trainer(net_with_quiet_steps(0), steps=25, compile=b, **options) for b in (None, QUICK))
    for trainer in (eager, quick):
        trainer.fit()
    sizes = {11, 10, 8, 6} if "accumulate" in options else {32, 22}
    assert graphs_compiled() == 2 * len(sizes)
    if "precision" in options:  # rounded once where the eager one rounds after every operation
        for name, value in eager.net.state_dict().items():
            torch.testing.assert_close(quick.net.state_dict()[name], value, rtol=0.1, atol=0.05)
    else:
        assert same(eager.net.state_dict(), quick.net.state_dict())


@pytest.mark.parametrize("stop", [9, 16])
def test_resumed_compiled_training_equals_the_unbroken_one_to_the_bit(
    make_trainer: MakeTrainer, tmp_path: Path, stop: int
) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            if self.trainer.step == stop:
                self.trainer.stop_training = self.trainer.history.interrupted = True

    def make(folder: Path, *callbacks: Callback) -> Trainer:
        callbacks = (*callbacks, ModelCheckpoint(folder))
        return make_trainer(net_with_quiet_steps(), steps=25, compile=QUICK, callbacks=callbacks)

    (tmp_path / "whole").mkdir()
    make(tmp_path / "whole").fit()
    assert make(tmp_path, Stop()).fit().interrupted
    resumed = make(tmp_path)
    resumed.resume_from(load(tmp_path / "last.pt"))
    torch.manual_seed(99)
    resumed.fit()
    assert same(load(tmp_path / "last.pt"), load(tmp_path / "whole/last.pt"))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # frozen parameters, to dynamo
def test_every_part_of_a_gan_is_compiled_and_equals_the_eager_one_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_few_streets(monkeypatch)
    eager, quick = (
        prepare(read_spec("streets/cyclegan/baseline", [*GAN, f"train.compile={compile}"])).trainer
        for compile in ("false", "true")
    )
    assert same(eager.fit().history, quick.fit().history)
    assert same(eager.net.state_dict(), quick.net.state_dict())
    assert all(site.mask.sparsity > 0.4 for site in sites(quick.net) if site.mask is not None)
    # two generators, each on real and on generated images, measuring and not; two discriminators, each on both
    assert graphs_compiled() <= 2 * 2 * 2 + 2 * 2
    assert not counters["graph_break"]


def test_the_networks_of_a_chain_are_all_compiled() -> None:
    nets = [nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU()) for width in range(2, 14)]
    for net in nets:
        compiled(net, QUICK)(torch.randn(2, 1, 8, 8)).sum().backward()
    assert graphs_compiled() == len(nets)  # torch's own limit for one class is 8


@pytest.mark.usefixtures("quick")
def test_report_and_log_count_the_graphs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    overrides = {"data.train_images": 135, "train.length": "2ep", "train.compile": True}
    with caplog.at_level(logging.INFO, "qprune.training"):
        history = qprune.fit("digits/baseline", runs=tmp_path, overrides=overrides, device="cpu", verbose=0)
    assert history.run is not None
    report = json.loads((history.run / "report.json").read_text())
    assert report["environment"]["graphs"] == graphs_compiled() > 0
    assert f"{graphs_compiled()} graphs were compiled." in caplog.messages


def test_steps_are_compiled_in_the_mode_that_the_spec_names(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda net, mode, **options: modes.append(mode) or net)
    small = {"data.train_images": 135, "train.length": "1ep"}
    trainers = [
        prepare(read_spec("digits/baseline", small | {"train.compile": value}), device="cpu").trainer
        for value in (True, "reduce-overhead", False)
    ]
    assert modes == [None, "reduce-overhead"]
    assert all(trainer.driver is not None for trainer in trainers)
    assert [trainer.driver.measure_all for trainer in trainers if trainer.driver] == [True, True, False]
    assert not any(trainer.replays for trainer in trainers)  # which is for GPUs


def test_networks_that_run_several_times_in_a_step_are_not_replayed() -> None:
    with pytest.raises(PlanError) as error:
        prepare(read_spec("streets/cyclegan/baseline", [*GAN, "train.compile=reduce-overhead"]), device="cpu")
    assert str(error.value) == (
        'train.compile = "reduce-overhead" replays recorded steps, which would overwrite gradients that several runs '
        "of a generator or discriminator add up in one step: use train.compile = true."
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of torch's compiler
def test_on_a_processor_replayed_steps_are_compiled_ones_to_the_bit(make_trainer: MakeTrainer) -> None:
    plain, replayed = (
        make_trainer(net_with_quiet_steps(dropout=0), steps=25, compile="inductor", compile_mode=mode)
        for mode in (None, "reduce-overhead")
    )
    assert same(plain.fit().history, replayed.fit().history)
    assert same(plain.net.state_dict(), replayed.net.state_dict())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of torch's compiler
def test_torch_s_own_compiler_trains_the_same_network_but_for_rounding(make_trainer: MakeTrainer) -> None:
    eager, inductor = (
        make_trainer(net_with_quiet_steps(dropout=0), steps=25, lr=0.01, compile=backend)
        for backend in (None, "inductor")
    )
    theirs, ours = eager.fit(), inductor.fit()
    assert graphs_compiled() == 4
    assert ours.events == theirs.events
    assert ours.history["loss"] == pytest.approx(theirs.history["loss"], rel=1e-3)
    for name, value in eager.net.state_dict().items():
        torch.testing.assert_close(inductor.net.state_dict()[name], value, rtol=1e-2, atol=1e-2)
