import errno
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qprune.layers import sites
from qprune.training import Callback, CSVLogger, ModelCheckpoint, TensorBoard, Trainer, event_log
from qprune.training.checkpoint import load
from qprune.training.event_log import EventLog
from qprune.training.tensorboard import LearningRateMonitor

MakeTrainer = Callable[..., Trainer]


def read(folder: Path) -> dict[str, list[Any]]:
    """What TensorBoard reads: for each tag the steps, with the numbers or the pictures."""
    sizes = {"scalars": 0, "images": 0, "histograms": 0}
    events = EventAccumulator(str(folder), sizes, purge_orphaned_data=True).Reload()
    scalars = {tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    counted = {
        tag: [(s.step, s.histogram_value) for s in events.Histograms(tag)] for tag in events.Tags()["histograms"]
    }
    images = {tag: [(s.step, s.encoded_image_string) for s in events.Images(tag)] for tag in images_of(events)}
    return scalars | counted | images


def images_of(events: EventAccumulator) -> list[str]:
    return list(events.Tags()["images"])


class Kill(Callback):
    """Copies the run's folder at a moment: what a process leaves that is killed there."""

    def __init__(self, folder: Path, hook: str, step: int) -> None:
        self.folder, self.step = folder, step
        setattr(self, hook, self._copy)

    def _copy(self, *_: Any) -> None:
        if self.trainer.step == self.step:
            shutil.copytree(self.folder, self.folder.with_name("killed"), dirs_exist_ok=True)


class CtrlC(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        if self.trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def make_run(make_joint_trainer: MakeTrainer, tmp_path: Path) -> Callable[..., Trainer]:
    """Trainers with all that writes files, a checkpoint every 4 steps and one validation after every 5."""

    def make(name: str, *callbacks: Callback, last: tuple[Callback, ...] = (), every: int | None = 4) -> Trainer:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        board = TensorBoard(folder / "tensorboard", lambda: [torch.full((3, 5, 7), trainer.step, dtype=torch.uint8)])
        built_in = [CSVLogger(folder / "history.csv"), board, LearningRateMonitor(every=3)]
        trainer = make_joint_trainer(callbacks=[*built_in, *callbacks, ModelCheckpoint(folder, every=every), *last])
        return trainer

    return make


def rows(path: Path) -> list[list[str]]:
    lines = [line.split(",") for line in path.read_text().splitlines()]
    timing = lines[0].index("seconds")
    return [line[:timing] + line[timing + 1 :] for line in lines]


def test_events_hold_losses_metrics_and_the_rate(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    history = make_trainer(steps=7, callbacks=[TensorBoard(tmp_path)]).fit().history
    scalars = read(tmp_path)
    assert set(scalars) == {
        "train/loss", "train/accuracy", "train/top5", "val/loss", "val/accuracy", "val/top5", "lr",
    }  # fmt: skip
    for tag, name in (("train/loss", "loss"), ("val/accuracy", "val_accuracy"), ("lr", "lr")):
        assert [step for step, _ in scalars[tag]] == [5, 7]
        assert [value for _, value in scalars[tag]] == pytest.approx(history[name])


def test_events_hold_every_sites_sparsity_and_the_active_quantizers(
    make_joint_trainer: MakeTrainer, tmp_path: Path
) -> None:
    history = make_joint_trainer(callbacks=[TensorBoard(tmp_path)]).fit()
    scalars = read(tmp_path)
    for site in ("0.output", "3.output"):
        told = [(event["step"], event["sparsity"]) for event in history.events if event["site"] == site]
        assert scalars[f"sparsity/{site}"] == [(0, 0.0), *told]
        assert told[-1][1] == 0.5
    assert scalars["quantizers/active"] == [(0, 0), (17, 1), (17, 2)]


def test_step_sizes_of_active_quantizers_are_counted_at_each_validation(
    make_joint_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_joint_trainer(callbacks=[TensorBoard(tmp_path)])
    trainer.fit()
    told = read(tmp_path)
    for site in (site for site in sites(trainer.net) if site.quant is not None):
        assert [step for step, _ in told[f"scales/{site.name}"]] == [20, 25]  # they start at step 17
        last = told[f"scales/{site.name}"][-1][1]
        powers = site.quant.scale.log2()
        assert (last.num, last.min) == (powers.numel(), pytest.approx(float(powers.min())))


def test_sites_are_drawn_at_validations_after_one_of_them_changed(
    make_joint_trainer: MakeTrainer, tmp_path: Path
) -> None:
    history = make_joint_trainer(callbacks=[TensorBoard(tmp_path)]).fit()
    refreshed = {-(-event["step"] // 5) * 5 for event in history.events if "sparsity" in event}
    assert [step for step, _ in read(tmp_path)["sparsity/of_sites"]] == sorted(refreshed)
    assert refreshed < {5, 10, 15, 20, 25}


def test_without_matplotlib_sites_are_not_drawn(
    make_joint_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    make_joint_trainer(callbacks=[TensorBoard(tmp_path)]).fit()
    assert "sparsity/of_sites" not in read(tmp_path)
    assert "sparsity/3.output" in read(tmp_path)


@pytest.mark.parametrize(
    ("hook", "step", "resumed_at"),
    [
        ("on_train_batch_end", 4, 4),  # right after a checkpoint in the middle of the first epoch
        ("on_train_batch_begin", 7, 5),
        ("on_train_batch_end", 11, 10),
        ("on_epoch_end", 15, 15),
        ("on_epoch_begin", 20, 20),
        ("on_train_batch_end", 18, 16),  # past the start of the quantizers
        ("on_train_end", 25, 25),
    ],
)
def test_killed_training_goes_on_without_a_doubled_or_missing_point(
    make_run: MakeTrainer, tmp_path: Path, hook: str, step: int, resumed_at: int
) -> None:
    make_run("whole", last=(Kill(tmp_path / "whole", hook, step),)).fit()
    assert load(tmp_path / "killed/last.pt")["step"] == resumed_at
    resumed = make_run("killed")
    resumed.resume_from(load(tmp_path / "killed/last.pt"))
    resumed.fit()
    whole = read(tmp_path / "whole/tensorboard")
    assert read(tmp_path / "killed/tensorboard") == whole
    drawn = {"pictures/0", "sparsity/of_sites", "scales/3.weight"}
    assert drawn | {"lr/0", "sparsity/3.output", "quantizers/active"} <= whole.keys()
    assert rows(tmp_path / "killed/history.csv") == rows(tmp_path / "whole/history.csv")


@pytest.mark.parametrize("step", [5, 10, 20])
def test_kill_between_the_events_and_the_checkpoint_of_a_validation(
    make_run: MakeTrainer, tmp_path: Path, step: int
) -> None:
    make_run("whole", Kill(tmp_path / "whole", "on_epoch_end", step)).fit()
    content = load(tmp_path / "killed/last.pt")
    assert content["step"] < step
    assert len(rows(tmp_path / "killed/history.csv")) - 1 == step // 5  # the row is there, the checkpoint is not
    resumed = make_run("killed")
    resumed.resume_from(content)
    resumed.fit()
    assert read(tmp_path / "killed/tensorboard") == read(tmp_path / "whole/tensorboard")


def test_kill_in_a_validation_that_ctrl_c_had_put_off(make_run: MakeTrainer, tmp_path: Path) -> None:
    make_run("whole").fit()
    assert make_run("stopped", CtrlC(10)).fit().interrupted  # the checkpoint of step 10 has no validation of step 10
    again = make_run("stopped", Kill(tmp_path / "stopped", "on_epoch_end", 10))
    again.resume_from(load(tmp_path / "stopped/last.pt"))
    again.fit()
    resumed = make_run("killed")
    content = load(tmp_path / "killed/last.pt")
    assert (content["step"], content["history"]["history"]["step"]) == (10, [5])
    resumed.resume_from(content)
    resumed.fit()
    for name in ("stopped", "killed"):
        assert read(tmp_path / name / "tensorboard") == read(tmp_path / "whole/tensorboard")


def test_csv_is_cut_back_when_training_goes_on_not_only_when_it_validates(
    make_run: MakeTrainer, tmp_path: Path
) -> None:
    make_run("whole", Kill(tmp_path / "whole", "on_epoch_end", 10)).fit()
    resumed = make_run("killed")
    resumed.resume_from(load(tmp_path / "killed/last.pt"))
    resumed.callbacks.on_train_begin({})
    assert [row[-2] for row in rows(tmp_path / "killed/history.csv")] == ["step", "5"]


def test_training_without_a_state_of_tensorboard_keeps_what_others_wrote(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    first = make_trainer(steps=5)
    first.fit()
    make_trainer(steps=10, callbacks=[TensorBoard(tmp_path)]).fit()
    resumed = make_trainer(steps=10, callbacks=[TensorBoard(tmp_path)])
    resumed.resume_from(first.state_dict())
    resumed.fit()
    assert [step for step, _ in read(tmp_path)["train/loss"]] == [5, 10]


def test_a_file_of_another_writer_is_left_alone(make_run: MakeTrainer, tmp_path: Path) -> None:
    make_run("whole", last=(Kill(tmp_path / "whole", "on_train_batch_end", 11),)).fit()
    other = tmp_path / "killed/tensorboard/events.out.tfevents.0123456789.host"
    other.write_bytes(b"theirs")
    resumed = make_run("killed")
    resumed.resume_from(load(tmp_path / "killed/last.pt"))
    resumed.fit()
    assert other.read_bytes() == b"theirs"


class FullDisk:
    """No more than ``room`` bytes can be written, until there is room again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.write = False, event_log._write_point
        monkeypatch.setattr(event_log, "_write_point", self)

    def __call__(self, file: Any, point: Any) -> None:
        if self.full and point[0] == "val/loss":
            file.write(b"half a rec")
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write(file, point)


@pytest.mark.parametrize("first", [5, 10])
def test_full_disk_is_told_once_and_the_numbers_follow(
    make_trainer: MakeTrainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    first: int,
) -> None:
    disk = FullDisk(monkeypatch)

    class Fill(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
            disk.full = first <= self.trainer.step < 20

    fill = Fill()
    trainer = make_trainer(steps=25, callbacks=[fill, TensorBoard(tmp_path), ModelCheckpoint(tmp_path)])
    with caplog.at_level(logging.WARNING):
        history = trainer.fit().history
    text = f"Training goes on without new points in {tmp_path}: No space left on device. They follow when there is room"
    assert [record.getMessage().startswith(text) for record in caplog.records] == [True]
    assert [step for step, _ in read(tmp_path)["val/loss"]] == history["step"] == [5, 10, 15, 20, 25]
    assert len(list(tmp_path.glob("events*"))) == 1


def test_numbers_that_found_no_room_are_in_the_checkpoint(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    disk.full = True
    first = make_trainer(steps=5, callbacks=[TensorBoard(tmp_path), ModelCheckpoint(tmp_path)])
    first.fit()
    disk.full = False
    resumed = make_trainer(steps=10, callbacks=[TensorBoard(tmp_path)])
    resumed.resume_from(load(tmp_path / "last.pt"))
    resumed.fit()
    assert [step for step, _ in read(tmp_path)["val/loss"]] == [5, 10]


def test_one_process_of_several_writes(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Trainer, "writes", False)
    make_trainer(
        steps=5, callbacks=[TensorBoard(tmp_path), CSVLogger(tmp_path / "h.csv"), ModelCheckpoint(tmp_path)]
    ).fit()
    assert list(tmp_path.iterdir()) == []


def test_points_are_written_when_asked_and_not_before(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "new")
    events.add("loss", 0.5, step=3)
    assert not (tmp_path / "new").exists()
    events.flush()
    events.flush()
    assert read(tmp_path / "new") == {"loss": [(3, 0.5)]}
    assert [path.stat().st_size for path in (tmp_path / "new").iterdir()] == list(events.sizes.values())


MakeTrainer = Callable[..., Trainer]


def test_every_groups_rate_is_at_every_few_steps(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(steps=10, callbacks=[TensorBoard(tmp_path), LearningRateMonitor(every=2)])
    trainer.lr_schedule = None
    first = trainer.optimizer.param_groups[0]
    trainer.optimizer.param_groups.append({**first, "params": [], "lr": 0.5, "name": "head"})
    rates = trainer.fit().history["lr"]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [point.step for point in events.Scalars("lr/0")] == [2, 4, 6, 8, 10]
    assert events.Scalars("lr/0")[-1].value == pytest.approx(rates[-1])
    assert [point.value for point in events.Scalars("lr/head")] == [0.5] * 5


def test_without_tensorboard_it_says_that_it_does_nothing(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        make_trainer(steps=2, callbacks=[LearningRateMonitor()]).fit()
    assert "LearningRateMonitor writes to TensorBoard; add a TensorBoard callback, or it does nothing." in caplog.text


def test_interval_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="every must be at least 1 step; received 0"):
        LearningRateMonitor(every=0)
