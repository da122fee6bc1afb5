from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qprune.training import Callback, History, ModelCheckpoint, Trainer
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
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "best.pt").read_bytes()


def test_model_is_the_last_epoch_without_a_validation_split(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(steps=7, val=False, callbacks=[ModelCheckpoint(tmp_path)])
    trainer.fit()
    model = load(tmp_path / "model.pt")
    assert model["step"] == 7
    assert all(torch.equal(model["state"][name], value) for name, value in trainer.net.state_dict().items())
    assert not (tmp_path / "best.pt").exists()


def test_model_holds_what_is_needed_to_load_it(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"spec": "format = 1\n", "classes": ("zero", "one"), "shape": (1, 8, 8)}
    make_trainer(steps=2, callbacks=[ModelCheckpoint(tmp_path, **facts)]).fit()
    model = load(tmp_path / "model.pt")
    assert (model["spec"], model["classes"], model["shape"]) == ("format = 1\n", ["zero", "one"], [1, 8, 8])
    assert load(tmp_path / "last.pt")["spec"] == "format = 1\n"


def test_files_load_under_weights_only(make_joint_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_joint_trainer(callbacks=[ModelCheckpoint(tmp_path)]).fit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "model.pt"]
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


def test_history_comes_back_from_the_last_checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    history = make_trainer(callbacks=[ModelCheckpoint(tmp_path)]).fit()
    loaded = History()
    loaded.load_state_dict(load(tmp_path / "last.pt")["history"])
    assert loaded.history == history.history
