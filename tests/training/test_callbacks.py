import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qprune.training import Callback, CallbackList, CSVLogger, Trainer

MakeTrainer = Callable[..., Trainer]


class Counter(Callback):
    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_states_go_back_to_the_callback_they_came_from() -> None:
    saved = CallbackList([Counter(3), Callback(), Counter(5)]).state_dict()
    fresh = [Callback(), Counter(), Counter()]
    CallbackList(fresh).load_state_dict(saved)
    assert saved == {"Counter-1": {"count": 3}, "Counter-2": {"count": 5}}
    assert [callback.count for callback in fresh if isinstance(callback, Counter)] == [3, 5]


def test_state_without_its_callback_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        CallbackList().load_state_dict({"Counter-1": {"count": 3}})
    assert "state of a callback Counter-1, which this training does not have" in caplog.text


def test_unknown_hook_is_no_hook() -> None:
    with pytest.raises(AttributeError, match="when_bored"):
        CallbackList().when_bored()


def test_csv_holds_the_history(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    history = make_trainer(steps=7, callbacks=[CSVLogger(tmp_path / "history.csv")]).fit().history
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(history)
    assert {name: [float(row[name]) for row in rows] for name in history} == history


def test_csv_of_a_resumed_training_has_no_row_twice(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("rows,past,the,checkpoint\n1,2,3,4\n5,6,7,8\n9,9,9,9\n")
    first = make_trainer(steps=5)
    first.fit()
    second = make_trainer(steps=10, callbacks=[CSVLogger(tmp_path / "history.csv")])
    second.resume_from(first.state_dict())
    second.fit()
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert [line.split(",")[7] for line in lines] == ["step", "5", "10"]
