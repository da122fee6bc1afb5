from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qprune.errors import CheckpointError, TrainingError
from qprune.training import Callback, History, ModelCheckpoint, Trainer, model_checkpoint
from qprune.training.checkpoint import load

MakeTrainer = Callable[..., Trainer]


class Watch(Callback):
    """At which steps best.pt was written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, list[int]()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        path = self.folder / "best.pt"
        if path.is_file() and load(path)["step"] == self.trainer.step:
            self.steps.append(self.trainer.step)


def test_best_is_chosen_only_after_the_driver_has_finished(make_joint_trainer: MakeTrainer, tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    trainer = make_joint_trainer(validate_every=2, callbacks=[ModelCheckpoint(tmp_path), watch])
    history = trainer.fit().history
    finished = [step for step in history["step"] if step >= 17]
    assert watch.steps[0] == finished[0] == 18
    scores = dict(zip(history["step"], history["val_accuracy"], strict=True))
    best = max(finished, key=lambda step: scores[step])
    assert load(tmp_path / "best.pt")["step"] == best
    assert load(tmp_path / "best.pt")["scores"]["val_accuracy"] == scores[best]


def test_model_is_the_best_where_there_is_a_validation_split(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(callbacks=[ModelCheckpoint(tmp_path)]).fit()
    model, best = load(tmp_path / "model.pt"), load(tmp_path / "best.pt")
    assert all(torch.equal(tensor, best["state"][name]) for name, tensor in model["state"].items())
    assert {**model, "state": None} == {**best, "state": None}


def test_model_is_the_last_epoch_without_a_validation_split(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(steps=7, val=False, callbacks=[ModelCheckpoint(tmp_path)])
    trainer.fit()
    model = load(tmp_path / "model.pt")
    assert model["step"] == 7
    assert all(torch.equal(model["state"][name], value) for name, value in trainer.net.state_dict().items())
    assert not (tmp_path / "best.pt").exists()


def test_model_of_a_network_with_a_hook_whose_owner_cannot_be_copied(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Counting(Callback):
        calls = 0

        def __deepcopy__(self, memo: object) -> None:
            raise NotImplementedError("such as a callback with its trainer, whose loader has processes")

        def on_train_begin(self, logs: dict[str, Any]) -> None:
            self.trainer.net.register_forward_hook(self.count)

        def count(self, *_: object) -> None:
            self.calls += 1

    counting = Counting()
    make_trainer(steps=2, callbacks=[ModelCheckpoint(tmp_path), counting]).fit()
    assert counting.calls >= 2
    assert load(tmp_path / "model.pt")["step"] == 2


def test_model_holds_what_is_needed_to_load_it(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"spec": "format = 1\n", "classes": ("zero", "one"), "shape": (1, 8, 8)}
    make_trainer(steps=2, callbacks=[ModelCheckpoint(tmp_path, **facts)]).fit()
    model = load(tmp_path / "model.pt")
    assert (model["spec"], model["classes"], model["shape"]) == ("format = 1\n", ["zero", "one"], [1, 8, 8])
    assert load(tmp_path / "last.pt")["spec"] == "format = 1\n"


def test_files_load_under_weights_only(make_joint_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_joint_trainer(callbacks=[ModelCheckpoint(tmp_path)]).fit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "model.pt", "previous.pt"]
    for path in tmp_path.iterdir():
        assert isinstance(torch.load(path, weights_only=True), dict)


def test_pruned_channels_are_zero_in_every_file(make_joint_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_joint_trainer(callbacks=[ModelCheckpoint(tmp_path)]).fit()
    for name, key in (("best.pt", "state"), ("model.pt", "state"), ("last.pt", "net")):
        state = load(tmp_path / name)[key]
        keep = state["0.output_mask.keep"]
        assert int(keep.sum()) == 3
        assert not state["0.weight"][~keep].any()
        assert not state["0.bias"][~keep].any()


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [("max", [0.5, 0.7, 0.7, float("nan"), 0.6], [True, True, False, False, False]),
     ("min", [0.5, 0.7, 0.4], [True, False, True])],
)  # fmt: skip
def test_first_of_equal_scores_is_the_best(
    make_trainer: MakeTrainer, tmp_path: Path, mode: str, values: list[float], expected: list[bool]
) -> None:
    checkpoint = ModelCheckpoint(tmp_path, monitor="val_top5", mode=mode)
    make_trainer(callbacks=[checkpoint])
    (tmp_path / "best.pt").touch()
    found = []
    for value in values:
        (tmp_path / "best.pt").unlink(missing_ok=True)
        checkpoint.on_epoch_end(0, {"val_top5": value})
        found.append((tmp_path / "best.pt").is_file())
    assert found == expected


def test_other_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='mode must be "max" or "min"; received \'best\''):
        ModelCheckpoint(tmp_path, mode="best")


@pytest.fixture
def last_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At which steps last.pt was written."""
    steps, save = list[int](), model_checkpoint.save

    def noted(path: Path, content: dict[str, Any], **options: Any) -> None:
        if path.name == "last.pt":
            steps.append(content["step"])
        save(path, content, **options)

    monkeypatch.setattr(model_checkpoint, "save", noted)
    return steps


def test_last_is_written_every_few_steps_and_once_at_a_validation(
    make_trainer: MakeTrainer, tmp_path: Path, last_steps: list[int]
) -> None:
    make_trainer(steps=13, validate_every=6, callbacks=[ModelCheckpoint(tmp_path, every=3)]).fit()
    assert last_steps == [3, 6, 9, 12, 13]
    assert load(tmp_path / "previous.pt")["step"] == 12


def test_last_is_written_when_the_minutes_are_over(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_steps: list[int]
) -> None:
    trainer = make_trainer(steps=13, validate_every=7, callbacks=[ModelCheckpoint(tmp_path, minutes=2)])
    # half a minute a step; a validation begins the minutes anew
    monkeypatch.setattr(model_checkpoint, "monotonic", lambda: 30.0 * trainer.step)
    trainer.fit()
    assert last_steps == [4, 7, 11, 13]


def test_processes_agree_on_the_minutes(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_steps: list[int]
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(Trainer, "agree", lambda self, flag: asked.append(flag) or self.step == 3)
    make_trainer(steps=5, callbacks=[ModelCheckpoint(tmp_path, minutes=60)]).fit()
    assert last_steps == [3, 5]
    assert asked == [False] * 5  # at each step but the last, and at the end


def test_save_best_only_leaves_the_last_checkpoint_out(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(callbacks=[ModelCheckpoint(tmp_path, save_best_only=True)]).fit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "model.pt"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, "every must be at least 1 step; received 0"),
        ({"minutes": 0}, "minutes must be above 0; received 0"),
        ({"every": 3, "save_best_only": True}, "which save_best_only leaves out; received every=3, minutes=None"),
    ],
)
def test_other_intervals_are_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ModelCheckpoint(tmp_path, **options)


def test_monitor_that_the_history_does_not_have_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match='ModelCheckpoint monitors "val_acc", which the history does not have'):
        make_trainer(callbacks=[ModelCheckpoint(tmp_path, monitor="val_acc")]).fit()


class FullDisk(Callback):
    """Lets nothing be saved while its steps last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, first: int, last: int) -> None:
        save = model_checkpoint.save

        def full(path: Path, content: dict[str, Any], **options: Any) -> None:
            if path.name == name and first <= self.trainer.step <= last:
                cause = OSError(28, "No space left on device")
                raise CheckpointError(f"{path} cannot be written: No space left on device.") from cause
            save(path, content, **options)

        monkeypatch.setattr(model_checkpoint, "save", full)


def test_training_survives_a_full_disk(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Look(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
            if self.trainer.step == 10:
                assert load(tmp_path / "last.pt")["step"] == 5

    callbacks = [FullDisk(monkeypatch, "last.pt", 8, 12), ModelCheckpoint(tmp_path, every=4), Look()]
    make_trainer(steps=15, callbacks=callbacks).fit()
    warnings = [record.getMessage() for record in caplog.records if "Training goes on" in record.getMessage()]
    assert len(warnings) == 3
    assert warnings[0] == (
        f"Training goes on without a new last.pt: {tmp_path}/last.pt cannot be written: No space left on device."
    )
    assert load(tmp_path / "last.pt")["step"] == 15


def test_best_that_could_not_be_written_is_not_the_best(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = ModelCheckpoint(tmp_path, monitor="epoch", mode="max")
    make_trainer(steps=15, callbacks=[FullDisk(monkeypatch, "best.pt", 10, 15), checkpoint]).fit()
    assert (checkpoint.best, checkpoint.best_step) == (1.0, 5)
    assert load(tmp_path / "model.pt")["step"] == 5


def test_full_disk_at_the_end_is_an_error(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(steps=7, callbacks=[FullDisk(monkeypatch, "last.pt", 7, 7), ModelCheckpoint(tmp_path)])
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be written: No space left on device"):
        trainer.fit()
    assert load(tmp_path / "last.pt")["step"] == 5


def test_state_that_cannot_be_saved_is_an_error_at_once(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Odd(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"path": tmp_path}

    trainer = make_trainer(callbacks=[Odd(), ModelCheckpoint(tmp_path)])
    with pytest.raises(CheckpointError, match=r"received a \w*Path at callbacks\.Odd-1\.path"):
        trainer.fit()
    assert trainer.step == 5


def test_best_that_is_gone_is_chosen_anew(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(steps=5, callbacks=[ModelCheckpoint(tmp_path)]).fit()
    (tmp_path / "best.pt").unlink()
    resumed = make_trainer(steps=10, callbacks=[ModelCheckpoint(tmp_path)])
    resumed.resume_from(load(tmp_path / "last.pt"))
    resumed.fit()
    assert f"{tmp_path}/best.pt, the model of step 5, is gone; the best is chosen anew." in caplog.text
    assert load(tmp_path / "model.pt")["step"] == 10


def test_model_is_the_moving_average_where_there_is_one(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    average = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
    monkeypatch.setattr(Trainer, "averaged_net", average)
    make_trainer(steps=5, callbacks=[ModelCheckpoint(tmp_path)]).fit()
    for name in ("best.pt", "model.pt"):
        assert torch.equal(load(tmp_path / name)["state"]["0.weight"], average[0].weight)


@pytest.mark.parametrize("step", [4, 9, 12, 16, 24])
def test_no_checkpoint_holds_a_channel_that_should_be_zero(
    make_joint_trainer: MakeTrainer, tmp_path: Path, step: int
) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            if self.trainer.step == step:
                raise OSError

    with pytest.raises(TrainingError):
        make_joint_trainer(callbacks=[Stop(), ModelCheckpoint(tmp_path, every=1)]).fit()
    content = load(tmp_path / "last.pt")
    assert content["step"] == step
    for event in content["history"]["events"]:
        if event.get("frozen"):
            name = event["site"].removesuffix(".output")
            dropped = ~content["net"][f"{name}.output_mask.keep"]
            assert dropped.any()
            assert not content["net"][f"{name}.weight"][dropped].any()
            parameter = {"0": 0, "3": 4}[name]
            assert not content["optimizer"]["state"][parameter]["momentum_buffer"][dropped].any()


def test_history_comes_back_from_the_last_checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    history = make_trainer(callbacks=[ModelCheckpoint(tmp_path)]).fit()
    loaded = History()
    loaded.load_state_dict(load(tmp_path / "last.pt")["history"])
    assert loaded.history == history.history
