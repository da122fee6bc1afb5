import csv
import errno
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from qprune.training import CSVLogger, Trainer, csv_logger

MakeTrainer = Callable[..., Trainer]


def steps_in(path: Path) -> list[str]:
    return [line.split(",")[7] for line in path.read_text().splitlines()]


def test_csv_holds_the_history(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    history = make_trainer(steps=7, callbacks=[CSVLogger(tmp_path / "history.csv")]).fit().history
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(history)
    assert {name: [float(row[name]) for row in rows] for name in history} == history


def test_csv_is_cut_back_to_the_checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("rows,past,the,checkpoint\n1,2,3,4\n5,6,7,8\n9,9,9,9\n")
    first = make_trainer(steps=5)
    first.fit()
    second = make_trainer(steps=10, callbacks=[CSVLogger(path)])
    second.resume_from(first.state_dict())
    second.callbacks.on_train_begin({})
    assert steps_in(path) == ["step", "5"]
    second.fit()
    assert steps_in(path) == ["step", "5", "10"]


def test_csv_of_a_checkpoint_before_the_first_validation_is_removed(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first = make_trainer(steps=10)
    first.step = 3
    second = make_trainer(steps=10, callbacks=[CSVLogger(tmp_path / "history.csv")])
    second.resume_from(first.state_dict())
    (tmp_path / "history.csv").write_text("step\n5\n")
    second.callbacks.on_train_begin({})
    assert list(tmp_path.iterdir()) == []


def test_new_training_leaves_the_file_until_it_has_a_row(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("mine\n")
    make_trainer(callbacks=[CSVLogger(tmp_path / "history.csv")]).callbacks.on_train_begin({})
    assert (tmp_path / "history.csv").read_text() == "mine\n"


def test_full_disk_is_told_and_the_rows_follow(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, writes, replaced = tmp_path / "history.csv", [], csv_logger.replaced

    def full_at_first(path: Path) -> object:
        writes.append(path)
        if len(writes) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replaced(path)

    monkeypatch.setattr(csv_logger, "replaced", full_at_first)
    with caplog.at_level(logging.WARNING):
        make_trainer(steps=10, callbacks=[CSVLogger(path)]).fit()
    assert f"Training goes on without its newest rows in {path}: [Errno 28] No space left on device" in caplog.text
    assert steps_in(path) == ["step", "5", "10"]
