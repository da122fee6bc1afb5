import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qprune.errors import TrainingError
from qprune.training import Callback, ModelCheckpoint, Trainer
from qprune.training.checkpoint import load
from qprune.training.early_stopping import EarlyStopping

MakeTrainer = Callable[..., Trainer]


class Score(Callback):
    """Adds a made-up entry to what the callbacks after it see, one value per validation."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        logs["val_accuracy"] = self.values[epoch]


class Weights(Callback):
    """The network's weights at each validation."""

    def __init__(self) -> None:
        self.at: dict[int, torch.Tensor] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        self.at[logs["step"]] = self.trainer.net[0].weight.detach().clone()  # type: ignore[index, union-attr, operator]


def weight(trainer: Trainer) -> torch.Tensor:
    return trainer.net[0].weight.detach()  # type: ignore[index, return-value, union-attr, operator]


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({}, 15),
        ({"patience": 1}, 15),
        ({"patience": 2}, 30),
        ({"patience": 2, "min_delta": 0.25}, 15),
        ({"start_from_epoch": 3}, 25),
        ({"start_from_epoch": 4}, 30),
        ({"mode": "min"}, 10),
    ],
)
def test_training_ends_after_so_many_validations_that_are_no_better(
    make_trainer: MakeTrainer, options: dict[str, Any], last: int
) -> None:
    scores = Score(0.5, 0.625, 0.625, 0.75, 0.75, 0.625)
    trainer = make_trainer(steps=40, callbacks=[scores, EarlyStopping(**options)])
    assert trainer.fit().history["step"][-1] == last
    assert trainer.finished


def test_nan_is_no_better(make_trainer: MakeTrainer) -> None:
    callbacks = [Score(0.5, float("nan"), 0.25), EarlyStopping(patience=2)]
    assert make_trainer(steps=40, callbacks=callbacks).fit().history["step"] == [5, 10, 15]


def test_only_finished_networks_count(make_joint_trainer: MakeTrainer) -> None:
    stopping = EarlyStopping()
    falling = Score(*(1 / (1 + number) for number in range(13)))
    history = make_joint_trainer(validate_every=2, callbacks=[falling, stopping]).fit()
    assert (stopping.best_step, history.history["step"][-1]) == (18, 20)  # masks and quantizers are done at step 17


def test_it_says_why_training_ends(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        make_trainer(steps=40, callbacks=[Score(0.5, 0.25), EarlyStopping()]).fit()
    assert "Stopping early at step 10: val_accuracy is no better than at step 5." in caplog.text


def test_best_weights_are_put_back(make_trainer: MakeTrainer) -> None:
    weights = Weights()
    callbacks = [Score(0.5, 0.75, 0.625, 0.5), weights, EarlyStopping(patience=2, restore_best_weights=True)]
    trainer = make_trainer(steps=40, callbacks=callbacks)
    assert trainer.fit().history["step"][-1] == 20
    assert torch.equal(weight(trainer), weights.at[10])
    assert not torch.equal(weight(trainer), weights.at[20])


def test_model_is_that_of_the_best_weights_and_the_last_checkpoint_is_not(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    weights = Weights()
    stopping = EarlyStopping("accuracy", patience=2, mode="min", restore_best_weights=True)
    callbacks = [weights, stopping, ModelCheckpoint(tmp_path)]
    trainer = make_trainer(steps=40, val=False, callbacks=callbacks)
    step = trainer.fit().history["step"][-1]
    assert stopping.best_step is not None
    assert stopping.best_step < step
    assert torch.equal(load(tmp_path / "model.pt")["state"]["0.weight"], weights.at[stopping.best_step])
    assert torch.equal(load(tmp_path / "last.pt")["net"]["0.weight"], weights.at[step])


def test_interrupted_training_keeps_its_own_weights(make_trainer: MakeTrainer) -> None:
    weights = Weights()

    class Interrupt(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
            self.trainer.history.interrupted = self.trainer.stop_training = logs["step"] == 10

    callbacks = [Score(0.5, 0.25), weights, EarlyStopping(patience=9, restore_best_weights=True), Interrupt()]
    trainer = make_trainer(steps=40, callbacks=callbacks)
    trainer.fit()
    assert torch.equal(weight(trainer), weights.at[10])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resumed_stopping_equals_the_unbroken_one(make_trainer: MakeTrainer, tmp_path: Path, stop: int) -> None:
    scores = (0.5, 0.75, 0.625, 0.5, 0.9)

    def make(*callbacks: Callback) -> Trainer:
        stopping = EarlyStopping(patience=2, restore_best_weights=True)
        return make_trainer(steps=40, callbacks=[Score(*scores), stopping, *callbacks])

    class Crash(Callback):
        def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
            if epoch == stop:
                raise OSError

    whole = make()
    whole.fit()
    with pytest.raises(TrainingError):
        make(Crash(), ModelCheckpoint(tmp_path)).fit()
    resumed = make()
    resumed.resume_from(load(tmp_path / "last.pt"))
    assert resumed.fit().history["step"] == [5, 10, 15, 20]
    assert torch.equal(weight(resumed), weight(whole))


def test_training_that_was_stopped_stays_stopped_when_it_is_resumed(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    def make() -> Trainer:
        stopping = EarlyStopping(restore_best_weights=True)
        return make_trainer(steps=40, val=True, callbacks=[Score(0.5, 0.25), stopping, ModelCheckpoint(tmp_path)])

    first = make()
    first.fit()
    again = make()
    again.resume_from(load(tmp_path / "last.pt"))
    assert again.fit().history["step"] == [5, 10]
    assert torch.equal(weight(again), weight(first))


def test_unknown_monitor_is_refused_at_the_first_validation(make_joint_trainer: MakeTrainer) -> None:
    trainer = make_joint_trainer(callbacks=[EarlyStopping("val_acc")])
    text = 'EarlyStopping monitors "val_acc", which the history does not have; it has loss, accuracy, top5, val_loss, '
    with pytest.raises(TrainingError, match=text):
        trainer.fit()
    assert trainer.step == 5


@pytest.mark.parametrize("name", ["patience", "min_delta", "start_from_epoch"])
def test_numbers_below_zero_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0; received -1"):
        EarlyStopping(**{name: -1})  # type: ignore[arg-type]
