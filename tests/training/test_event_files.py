from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qprune.training import TensorBoard, Trainer

MakeTrainer = Callable[..., Trainer]


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), purge_orphaned_data=True).Reload()
    return {tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


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


def test_resumed_training_replaces_what_lies_past_its_checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first = make_trainer(steps=5)
    first.fit()
    make_trainer(steps=10, callbacks=[TensorBoard(tmp_path)]).fit()
    resumed = make_trainer(steps=10, callbacks=[TensorBoard(tmp_path)])
    resumed.resume_from(first.state_dict())
    resumed.fit()
    assert [step for step, _ in read(tmp_path)["train/loss"]] == [5, 10]
