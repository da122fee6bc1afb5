from collections.abc import Callable
from typing import Any

import pytest

from qprune.errors import QpruneError
from qprune.training import Callback, History, Trainer


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        if self.trainer.step == self.step < self.trainer.steps:
            self.trainer.history.interrupted = self.trainer.stop_training = True


def test_entries_become_lists_by_name() -> None:
    history = History()
    history.add({"step": 3, "loss": 0.5})
    history.add({"step": 6, "loss": 0.25})
    assert history.history == {"step": [3, 6], "loss": [0.5, 0.25]}
    assert (len(history), history.last()) == (2, {"step": 6, "loss": 0.25})


def test_empty_history_has_no_last_entry() -> None:
    assert (len(History()), History().last()) == (0, {})


def test_entry_with_other_names_is_refused() -> None:
    history = History()
    history.add({"step": 3, "loss": 0.5})
    with pytest.raises(ValueError, match="entries must have the names step, loss; received step, accuracy"):
        history.add({"step": 6, "accuracy": 0.5})


def test_history_goes_on_over_resumed_trainings(make_joint_trainer: Callable[..., Trainer]) -> None:
    whole = make_joint_trainer(steps=25).fit()
    parts = [make_joint_trainer(steps=25) for _ in range(3)]
    for part, end in zip(parts, (7, 18, 25), strict=True):
        part.use([StopAt(end)])
        part.fit()
        if end < 25:
            parts[parts.index(part) + 1].resume_from(part.state_dict())
    history = parts[-1].history
    assert {**history.history, "seconds": 0} == {**whole.history, "seconds": 0}
    assert history.events == whole.events


def test_preempted_is_told_apart_from_interrupted() -> None:
    assert (History().interrupted, History().preempted) == (False, False)


def test_plot_of_an_empty_history_is_refused() -> None:
    with pytest.raises(QpruneError, match="The history is empty: there is nothing to plot before the first validation"):
        History().plot()


def test_state_goes_through_a_copy() -> None:
    history, other = History(), History()
    history.add({"loss": 0.5})
    history.events.append({"step": 4, "site": "0.input", "bits": 4})
    other.load_state_dict(history.state_dict())
    history.add({"loss": 0.25})
    assert other.history == {"loss": [0.5]}
    assert other.events == history.events
