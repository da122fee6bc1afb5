import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qprune.training import TensorBoard, Trainer
from qprune.training.learning_rate import LearningRateMonitor

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
