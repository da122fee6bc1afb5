import copy
import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparing import same
from torch import nn
from torch.utils.data import DataLoader, Dataset

from qprune.data import eval_loader, load_data, train_loader
from qprune.errors import CheckpointError
from qprune.spec import DataSpec
from qprune.training import (
    Callback,
    CallbackError,
    CSVLogger,
    ModelCheckpoint,
    TerminateOnNaN,
    Trainer,
    interrupt,
    make_average,
)
from qprune.training.checkpoint import load
from qprune.training.reproducibility import seed_generators

MakeTrainer = Callable[..., Trainer]


class CtrlC(Callback):
    """Sends the signal of Ctrl-C in the middle of a step."""

    def __init__(self, step: int, hook: str = "on_train_batch_begin") -> None:
        self.step = step
        setattr(self, hook, self._press)

    def _press(self, *_: Any) -> None:
        if self.trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def unbroken(make: MakeTrainer, folder: Path, **options: Any) -> dict[str, Any]:
    make(callbacks=[ModelCheckpoint(folder)], **options).fit()
    return load(folder / "last.pt")


@pytest.mark.parametrize(
    ("stop", "options"), [(stop, {}) for stop in (1, 4, 5, 8, 10, 17, 23)] + [(10, {"fused": True, "tf32": True})]
)
def test_resumed_training_equals_the_unbroken_one_to_the_bit(
    make_joint_trainer: MakeTrainer, tmp_path: Path, stop: int, options: dict[str, Any]
) -> None:
    make_joint_trainer = partial(make_joint_trainer, **options)
    (tmp_path / "whole").mkdir()
    whole = unbroken(make_joint_trainer, tmp_path / "whole")

    history = make_joint_trainer(callbacks=[CtrlC(stop - 1), ModelCheckpoint(tmp_path)]).fit()
    assert history.interrupted
    assert load(tmp_path / "last.pt")["step"] == stop

    resumed = make_joint_trainer(callbacks=[ModelCheckpoint(tmp_path)])
    resumed.resume_from(load(tmp_path / "last.pt"))
    torch.manual_seed(99)
    assert not resumed.fit().interrupted
    assert same(load(tmp_path / "last.pt"), whole)
    for name in ("best.pt", "model.pt"):
        assert same(load(tmp_path / name)["state"], load(tmp_path / "whole" / name)["state"])


def test_training_resumes_after_the_crash_of_a_callback(make_joint_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Crash(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            if self.trainer.step == 13:
                raise MemoryError("no room")

    (tmp_path / "whole").mkdir()
    whole = unbroken(make_joint_trainer, tmp_path / "whole")
    with pytest.raises(CallbackError, match="Crash failed in on_train_batch_end at step 13: MemoryError: no room"):
        make_joint_trainer(callbacks=[Crash(), ModelCheckpoint(tmp_path)]).fit()
    assert load(tmp_path / "last.pt")["step"] == 13

    resumed = make_joint_trainer(callbacks=[ModelCheckpoint(tmp_path)])
    resumed.resume_from(load(tmp_path / "last.pt"))
    resumed.fit()
    assert same(load(tmp_path / "last.pt"), whole)


def test_ctrl_c_during_validation_leaves_it_to_the_resumed_training(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Press(nn.Module):
        armed = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.armed and not self.training:
                self.armed = False
                os.kill(os.getpid(), signal.SIGINT)
            return x

    def net() -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Press())

    trainer = make_trainer(net(), steps=5, callbacks=[ModelCheckpoint(tmp_path)])
    history = trainer.fit()
    assert (trainer.step, history.interrupted, len(history)) == (5, True, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]

    resumed = make_trainer(net(), steps=5, callbacks=[ModelCheckpoint(tmp_path)])
    resumed.net[2].armed = False  # type: ignore[index, assignment]
    resumed.resume_from(load(tmp_path / "last.pt"))
    assert resumed.fit().history["step"] == [5]
    assert (tmp_path / "model.pt").is_file()


def test_ctrl_c_in_the_last_step_of_all_is_no_interruption(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(steps=5, callbacks=[CtrlC(5, "on_epoch_end"), ModelCheckpoint(tmp_path)])
    assert not trainer.fit().interrupted
    assert (tmp_path / "model.pt").is_file()


def test_ctrl_c_saves_and_writes_no_model(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [CtrlC(6), CSVLogger(tmp_path / "history.csv"), ModelCheckpoint(tmp_path)]
    trainer = make_trainer(callbacks=callbacks)
    assert trainer.fit().interrupted
    assert trainer.step == 7
    assert not trainer.finished
    assert load(tmp_path / "last.pt")["step"] == 7
    assert not (tmp_path / "model.pt").exists()


def test_echo_of_a_ctrl_c_is_no_second_one(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(callbacks=[CtrlC(6), CtrlC(6)])
    assert trainer.fit().interrupted
    assert trainer.step == 7


def test_second_ctrl_c_stops_at_once(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "ECHO", 0)
    trainer = make_trainer(callbacks=[CtrlC(6), CtrlC(6)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.step == 6


def test_ctrl_c_is_python_s_own_again_after_training(make_trainer: MakeTrainer) -> None:
    before = signal.getsignal(signal.SIGINT)
    make_trainer(steps=2).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupted_trainer_goes_on_when_asked_again(make_trainer: MakeTrainer) -> None:
    whole = make_trainer().fit().history
    trainer = make_trainer(callbacks=[CtrlC(6)])
    assert trainer.fit().interrupted
    history = trainer.fit()
    assert not history.interrupted
    assert same(history.history, whole)


def test_resuming_a_finished_training_changes_nothing(make_joint_trainer: MakeTrainer, tmp_path: Path) -> None:
    whole = unbroken(make_joint_trainer, tmp_path)
    trainer = make_joint_trainer(callbacks=[TerminateOnNaN(), ModelCheckpoint(tmp_path)])
    trainer.resume_from(load(tmp_path / "last.pt"))
    trainer.fit()
    assert same(load(tmp_path / "last.pt"), whole)


def test_checkpoint_of_a_longer_training_is_refused(make_trainer: MakeTrainer) -> None:
    longer, shorter = make_trainer(steps=9), make_trainer(steps=6)
    longer.fit()
    with pytest.raises(CheckpointError, match=r"written at step 9, but this training ends at step 6\. Train longer"):
        shorter.resume_from(longer.state_dict())


def test_checkpoint_of_another_network_is_refused(make_trainer: MakeTrainer) -> None:
    other = make_trainer(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), steps=2)
    with pytest.raises(CheckpointError, match=r"The checkpoint is of another network: missing: 0\.weight"):
        make_trainer().resume_from(other.state_dict())


def test_checkpoint_can_be_resumed_from_twice(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(callbacks=[CtrlC(6), ModelCheckpoint(tmp_path)]).fit()
    content = load(tmp_path / "last.pt")
    before, histories = copy.deepcopy(content), []
    for _ in range(2):
        trainer = make_trainer()
        trainer.resume_from(content)
        histories.append(trainer.fit().history)
    assert same(content, before)
    assert same(*histories)


def test_checkpoint_of_a_training_without_a_moving_average_is_refused(make_trainer: MakeTrainer) -> None:
    plain = make_trainer(steps=2)
    plain.fit()
    averaged = make_trainer()
    averaged.average = make_average(averaged.net, decay=0.9)
    with pytest.raises(CheckpointError, match="The checkpoint has no average: it is of another kind of training"):
        averaged.resume_from(plain.state_dict())


def test_sigterm_saves_and_is_told_from_ctrl_c(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Preempt(CtrlC):
        def _press(self, *_: Any) -> None:
            if self.trainer.step == self.step:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = make_trainer(callbacks=[Preempt(6), Preempt(6), ModelCheckpoint(tmp_path)])
    history = trainer.fit()
    assert (history.interrupted, history.preempted) == (True, True)
    assert load(tmp_path / "last.pt")["step"] == 7
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not trainer.fit().preempted


class Jittered(Dataset[Any]):
    """Digits with noise as people write it: from every global generator."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.images[index]
        if random.random() < 0.5:
            image = image.flip(-1)
        return image + torch.tensor(np.random.randn(1, 8, 8), dtype=torch.float32) + 0.1 * torch.randn(1, 8, 8), label


class ByChance(nn.Module):
    """Scales by numbers that only Python and NumPy know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1 + random.random() * np.random.rand()) if self.training else x


def scaling_trainer(make: MakeTrainer, folder: Path, train: Any, val: Any, *callbacks: Callback) -> Trainer:
    torch.manual_seed(4)
    net = nn.Sequential(ByChance(), nn.Flatten(), nn.Linear(64, 10))
    trainer = make(net, callbacks=[*callbacks, ModelCheckpoint(folder)])
    trainer.train, trainer.val = train, val
    return trainer


def check_resumed(make: Callable[..., Trainer], folder: Path, stop: int) -> None:
    """``make(folder, callbacks)`` stopped in a step and resumed, against unbroken."""
    (folder / "whole").mkdir()
    seed_generators(5)
    make(folder / "whole").fit()
    seed_generators(5)
    assert make(folder, CtrlC(stop)).fit().interrupted
    seed_generators(6)
    resumed = make(folder)
    resumed.resume_from(load(folder / "last.pt"))
    resumed.fit()
    assert same(load(folder / "last.pt"), load(folder / "whole" / "last.pt"))


@pytest.mark.parametrize("workers", [0, 2])
def test_own_data_and_layers_that_draw_from_numpy_and_python_resume_to_the_bit(
    make_trainer: MakeTrainer, tmp_path: Path, workers: int
) -> None:
    digits = load_data(DataSpec("digits", train_images=150), seed=1)

    def make(folder: Path, *callbacks: Callback) -> Trainer:
        train = train_loader(Jittered(digits.train), batch=32, seed=1, workers=workers)
        val = eval_loader(Jittered(digits.val), batch=64, workers=workers)
        return scaling_trainer(make_trainer, folder, train, val, *callbacks)

    check_resumed(make, tmp_path, stop=7)


@pytest.mark.parametrize("workers", [0, 2])
def test_own_loader_resumes_to_the_bit_from_the_end_of_an_epoch(
    make_trainer: MakeTrainer, tmp_path: Path, workers: int
) -> None:
    digits = load_data(DataSpec("digits", train_images=150), seed=1)

    def make(folder: Path, *callbacks: Callback) -> Trainer:
        train = DataLoader(Jittered(digits.train), batch_size=32, shuffle=True, num_workers=workers)
        val = DataLoader(Jittered(digits.val), batch_size=64, num_workers=workers)
        return scaling_trainer(make_trainer, folder, train, val, *callbacks)

    check_resumed(make, tmp_path, stop=4)  # after the fifth step, which ends the epoch


def test_checkpoint_without_numpy_s_and_python_s_numbers_still_resumes(
    make_joint_trainer: MakeTrainer, tmp_path: Path
) -> None:
    whole = unbroken(make_joint_trainer, tmp_path)
    trainer = make_joint_trainer(callbacks=[CtrlC(7)])
    trainer.fit()
    state = trainer.state_dict()
    state["ranks"][0]["rng"] = {"cpu": state["ranks"][0]["rng"]["cpu"]}  # as earlier versions wrote it
    resumed = make_joint_trainer()
    resumed.resume_from(state)
    resumed.fit()
    assert same(resumed.net.state_dict(), whole["net"])
