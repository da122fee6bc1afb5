"""Trackers are told each number once, over interruptions, and training goes on where they fail."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qprune.training import Callback, ModelCheckpoint, Trainer
from qprune.training.callbacks import Logs
from qprune.training.checkpoint import load
from qprune.training.tracker import Point, Tracker, tag_of

MakeTrainer = Callable[..., Trainer]


class Notes(Tracker):
    """Keeps what it is told, for all that have the same list; fails while ``down``."""

    title, package = "Notes", "notes"

    def __init__(self, told: list[Point] | None = None) -> None:
        super().__init__("mine", {"train.batch": 32})
        self.told = told if told is not None else []
        self.outcomes: list[str] = []
        self.files: list[str] = []
        self.down = False

    def begin(self) -> int:
        self._work()
        self.id = self.id or "new"
        return -1

    def send(self, points: Sequence[Point]) -> None:
        self._work()
        self.told += points

    def send_files(self, files: Sequence[Path]) -> None:
        self._work()
        self.files += [file.name for file in files]

    def end(self, outcome: str) -> None:
        self._work()
        self.outcomes.append(outcome)

    def _work(self) -> None:
        if self.down:
            raise ConnectionError("no route to host")


class At(Callback):
    """Does something at a step."""

    def __init__(self, step: int, act: Callable[[], Any]) -> None:
        self.step, self.act = step, act

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        if self.trainer.step == self.step:
            self.act()


def test_every_number_and_event_is_told_once(make_joint_trainer: MakeTrainer) -> None:
    notes = Notes()
    history = make_joint_trainer(callbacks=[notes]).fit()
    losses = [(step, value) for tag, value, step in notes.told if tag == "val/loss"]
    assert losses == list(zip(history.history["step"], history.history["val_loss"], strict=True))
    sites = [(step, value) for tag, value, step in notes.told if tag == "sparsity/0.output"]
    assert sites == [(e["step"], e["sparsity"]) for e in history.events if e["site"] == "0.output" and "sparsity" in e]
    assert [point for point in notes.told if point[0] == "quantizers/started"] == [
        ("quantizers/started", 1.0, 17), ("quantizers/started", 2.0, 17),
    ]  # fmt: skip
    assert len(set(notes.told)) == len(notes.told)


@pytest.mark.parametrize("step", [4, 5, 16, 18])
def test_a_resumed_training_goes_on_with_the_same_run_and_tells_nothing_twice(
    make_joint_trainer: MakeTrainer, tmp_path: Path, step: int
) -> None:
    whole = Notes()
    make_joint_trainer(callbacks=[whole]).fit()
    first = Notes()
    stop = At(step, lambda: setattr(stopped.interruption, "came", True))
    stopped = make_joint_trainer(callbacks=[first, stop, ModelCheckpoint(tmp_path)])
    assert stopped.fit().interrupted
    second = Notes(first.told)
    resumed = make_joint_trainer(callbacks=[second])
    resumed.resume_from(load(tmp_path / "last.pt"))
    resumed.fit()
    assert second.id == "new"
    assert sorted(second.told) == sorted(whole.told)


def test_a_tracker_that_fails_is_told_later_and_ends_no_training(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    notes.down = True
    callbacks = [At(12, lambda: setattr(notes, "down", False)), notes]
    with caplog.at_level(logging.WARNING):
        history = make_trainer(steps=20, callbacks=callbacks).fit()
    assert [step for tag, _, step in notes.told if tag == "train/loss"] == history.history["step"] == [5, 10, 15, 20]
    assert [record.getMessage() for record in caplog.records] == [
        "Notes cannot be told of this training: ConnectionError: no route to host. Training goes on, and what is "
        "missing there follows as soon as it can be reached."
    ]


def test_what_was_never_told_is_said_at_the_end(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    notes.down = True
    with caplog.at_level(logging.WARNING):
        make_trainer(steps=10, callbacks=[notes]).fit()
        notes.finish({}, [])
    assert caplog.records[-1].getMessage() == "Notes has not all of this training; it is in the run's history.csv."
    assert len(caplog.records) == 2


def test_a_finished_training_gives_scores_and_files_and_is_closed_then(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    notes = Notes()
    make_trainer(steps=5, callbacks=[notes]).fit()
    assert notes.outcomes == []  # the report is yet to be written
    (tmp_path / "report.json").write_text("{}")
    notes.finish({"test": {"accuracy": 0.5}}, [tmp_path / "report.json", tmp_path / "report.html"])
    assert notes.told[-1] == ("final/test/accuracy", 0.5, 5)
    assert (notes.files, notes.outcomes) == (["report.json"], ["finished"])


def test_an_interrupted_or_failed_training_is_closed_as_what_it_is(make_trainer: MakeTrainer) -> None:
    notes = Notes()
    trainer = make_trainer(steps=10, callbacks=[notes])
    trainer.use([At(3, lambda: setattr(trainer.interruption, "came", True))])
    trainer.fit()
    assert notes.outcomes == ["interrupted"]
    notes = Notes()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        make_trainer(steps=10, callbacks=[notes, At(3, lambda: 1 // 0)]).fit()
    assert notes.outcomes == ["failed"]


def test_one_process_of_several_tells(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "writes", False)
    notes = Notes()
    make_trainer(steps=5, callbacks=[notes]).fit()
    notes.finish({}, [])
    assert (notes.told, notes.id, notes.outcomes) == ([], "", [])


def test_tags_are_those_of_tensorboard() -> None:
    assert [tag_of(name) for name in ("loss", "val_loss", "lr", "val_iou_sky")] == [
        "train/loss", "val/loss", "lr", "val/iou_sky",
    ]  # fmt: skip
