import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qprune.errors import QpruneError, TrainingError
from qprune.training import Callback, CallbackError, CallbackList, ModelCheckpoint, Trainer
from qprune.training.callbacks import HOOKS, LambdaCallback
from qprune.training.checkpoint import load

MakeTrainer = Callable[..., Trainer]


class Counter(Callback):
    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Crash(Callback):
    """Raises in one hook, once a step is reached."""

    def __init__(self, hook: str, step: int, error: BaseException) -> None:
        self.step, self.error = step, error
        setattr(self, hook, self._crash)

    def _crash(self, *_: Any) -> None:
        if self.trainer.step >= self.step:
            raise self.error


class Notes(Callback):
    """Which hooks were called, with the step."""

    def __init__(self, *without: str) -> None:
        self.notes: list[tuple[str, int]] = []
        for hook in set(HOOKS) - set(without):
            setattr(self, hook, lambda *_, hook=hook: self.notes.append((hook, self.trainer.step)))


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


@pytest.mark.parametrize("name", ["when_bored", "on_boredom"])
def test_unknown_hook_is_no_hook(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"there is no hook {name}, only on_train_begin, on_train_end, "):
        getattr(CallbackList(), name)()


def test_hooks_come_in_the_documented_order(make_joint_trainer: MakeTrainer) -> None:
    notes = Notes()
    make_joint_trainer(steps=18, validate_every=17, callbacks=[notes]).fit()
    step = ["on_train_batch_begin", "on_before_optimizer_step", "on_train_batch_end"]
    assert [hook for hook, _ in notes.notes[:5]] == ["on_train_begin", "on_epoch_begin", *step]
    last = notes.notes.index(("on_train_batch_begin", 16))
    assert notes.notes[last:] == [
        ("on_train_batch_begin", 16),
        ("on_before_optimizer_step", 16),
        ("on_quantize", 17),
        ("on_quantize", 17),
        ("on_train_batch_end", 17),
        ("on_epoch_end", 17),
        ("on_epoch_begin", 17),
        ("on_train_batch_begin", 17),
        ("on_before_optimizer_step", 17),
        ("on_train_batch_end", 18),
        ("on_epoch_end", 18),
        ("on_train_end", 18),
    ]


def test_dropped_channels_are_zero_when_a_freeze_is_told(make_joint_trainer: MakeTrainer) -> None:
    told: list[tuple[str, int]] = []

    class Look(Callback):
        def on_freeze(self, site: str) -> None:
            told.append((site, self.trainer.step))
            host = self.trainer.net[int(site[0])]  # type: ignore[index, operator]
            keep = host.output_mask.keep
            assert not keep.all()
            assert not host.weight[~keep].any()

    trainer = make_joint_trainer(callbacks=[Look()])
    history = trainer.fit()
    frozen = [(event["site"], event["step"]) for event in history.events if event.get("frozen")]
    assert told == frozen
    assert {site for site, _ in told} == {"0.output", "3.output"}


def test_hook_that_nobody_overrides_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks = CallbackList([Callback(), Counter()])
    monkeypatch.setattr(Counter, "on_epoch_end", Callback.on_epoch_end, raising=False)
    callbacks.on_train_batch_end(0, {})
    assert callbacks._listeners == {"on_train_batch_end": []}


def test_hook_may_be_put_in_place_while_training(make_trainer: MakeTrainer) -> None:
    steps: list[int] = []

    class Late(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
            self.on_train_batch_end = lambda batch, logs: steps.append(self.trainer.step)  # type: ignore[method-assign]

    make_trainer(steps=8, callbacks=[Late()]).fit()
    assert steps == [6, 7, 8]


@pytest.mark.parametrize(
    ("hook", "step"),
    [("on_train_batch_begin", 13), ("on_train_batch_end", 13), ("on_epoch_end", 15), ("on_epoch_begin", 10),
     ("on_quantize", 17), ("on_train_end", 25)],
)  # fmt: skip
def test_crash_is_named_and_everything_is_saved(
    make_joint_trainer: MakeTrainer, tmp_path: Path, hook: str, step: int
) -> None:
    crash = Crash(hook, step, MemoryError("no room for a picture.\nsecond line"))
    trainer = make_joint_trainer(callbacks=[crash, ModelCheckpoint(tmp_path)])
    with pytest.raises(CallbackError) as error:
        trainer.fit()
    assert str(error.value) == (
        f"Crash failed in {hook} at step {step}: MemoryError: no room for a picture. second line. "
        "Everything up to that step is saved; mend it and go on with --resume."
    )
    assert error.value.__cause__ is crash.error
    assert isinstance(error.value, TrainingError)
    assert load(tmp_path / "last.pt")["step"] == step


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end", "on_epoch_end"])
def test_crashed_training_goes_on_as_if_nothing_had_been(
    make_joint_trainer: MakeTrainer, tmp_path: Path, hook: str
) -> None:
    whole = make_joint_trainer().fit()
    with pytest.raises(CallbackError):
        make_joint_trainer(callbacks=[Crash(hook, 14, OSError()), ModelCheckpoint(tmp_path)]).fit()
    resumed = make_joint_trainer()
    resumed.resume_from(load(tmp_path / "last.pt"))
    history = resumed.fit()
    assert {**history.history, "seconds": 0} == {**whole.history, "seconds": 0}
    assert history.events == whole.events


def test_crash_before_the_first_step_of_a_resumed_training_keeps_its_random_numbers(
    make_joint_trainer: MakeTrainer, tmp_path: Path
) -> None:
    whole = make_joint_trainer().fit()
    for crash in (Crash("on_train_batch_end", 8, OSError()), Crash("on_train_begin", 8, OSError())):
        trainer = make_joint_trainer(callbacks=[crash, ModelCheckpoint(tmp_path)])
        if (tmp_path / "last.pt").exists():
            trainer.resume_from(load(tmp_path / "last.pt"))
            torch.manual_seed(99)
        with pytest.raises(CallbackError):
            trainer.fit()
    resumed = make_joint_trainer()
    resumed.resume_from(load(tmp_path / "last.pt"))
    assert resumed.fit().history["loss"] == whole.history["loss"]


def test_crash_in_the_middle_of_a_step_saves_nothing(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callbacks = [Crash("on_before_optimizer_step", 7, KeyError("x")), ModelCheckpoint(tmp_path)]
    with pytest.raises(CallbackError) as error:
        make_trainer(callbacks=callbacks).fit()
    assert str(error.value) == (
        "Crash failed in on_before_optimizer_step at step 7: KeyError: 'x'. That step was not saved; mend it, then go "
        "on from the last checkpoint or train again."
    )
    assert load(tmp_path / "last.pt")["step"] == 5


def test_without_a_checkpoint_nobody_says_that_it_is_saved(make_trainer: MakeTrainer) -> None:
    with pytest.raises(CallbackError, match=r"at step 3: ValueError\. That step was not saved"):
        make_trainer(callbacks=[Crash("on_train_batch_end", 3, ValueError())]).fit()


def test_others_do_their_part_when_one_crashes(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    two = [Crash("on_epoch_end", 5, OSError("first")), Crash("on_epoch_end", 5, OSError("second"))]
    with pytest.raises(CallbackError, match="first"):
        make_trainer(callbacks=[*two, notes]).fit()
    assert notes.notes[-2:] == [("on_epoch_end", 5), ("on_exception", 5)]
    assert "Crash failed in on_epoch_end at step 5: OSError: second" in caplog.text


@pytest.mark.parametrize("error", [QpruneError("ours"), KeyboardInterrupt()])
def test_our_own_errors_and_ctrl_c_go_through_at_once(make_trainer: MakeTrainer, error: BaseException) -> None:
    notes = Notes()
    with pytest.raises(type(error)) as found:
        make_trainer(callbacks=[Crash("on_train_batch_end", 3, error), notes]).fit()
    assert found.value is error
    assert notes.notes[-1] == ("on_before_optimizer_step", 2)


def test_error_that_comes_before_one_of_ours_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Callback(), Callback()
    first.on_freeze = _raiser(OSError("first"))  # type: ignore[method-assign]
    second.on_freeze = _raiser(QpruneError("ours"))  # type: ignore[method-assign]
    with pytest.raises(QpruneError, match="ours"):
        CallbackList([first, second]).on_freeze("0.input")
    assert "Callback failed in on_freeze: OSError: first" in caplog.text


def test_crash_while_a_crash_is_handled_does_not_hide_it(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    crash = Crash("on_train_batch_end", 3, OSError("first"))
    crash.on_exception = _raiser(OSError("second"))  # type: ignore[method-assign]
    crash.close = _raiser(OSError("third"))  # type: ignore[method-assign]
    with pytest.raises(CallbackError, match="on_train_batch_end at step 3: OSError: first"):
        make_trainer(callbacks=[crash]).fit()
    assert "After Crash had failed: Crash failed in on_exception at step 3: OSError: second" in caplog.text
    assert "Crash failed in close at step 3: OSError: third" in caplog.text


def test_crash_in_close_closes_the_others(make_trainer: MakeTrainer) -> None:
    closed: list[str] = []

    class File(Callback):
        def close(self) -> None:
            closed.append("file")

    crash = Crash("close", 0, OSError("first"))
    with pytest.raises(CallbackError, match=r"Crash failed in close at step 2: OSError: first\. "):
        make_trainer(steps=2, callbacks=[crash, File()]).fit()
    assert closed == ["file"]


def test_error_goes_through_pickle() -> None:
    error = CallbackError("Crash", "on_epoch_end", 13, "OSError: " + "x")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_long_reasons_are_cut() -> None:
    crash = Callback()
    crash.on_freeze = _raiser(OSError("word " * 100))  # type: ignore[method-assign]
    with pytest.raises(CallbackError) as error:
        CallbackList([crash]).on_freeze("0.input")
    assert len(error.value.reason) < 220


def _raiser(error: Exception) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        raise error

    return hook


MakeTrainer = Callable[..., Trainer]


def test_functions_are_hooks(make_trainer: MakeTrainer) -> None:
    told: list[object] = []
    callback = LambdaCallback(
        on_epoch_end=lambda epoch, logs: told.append((epoch, logs["step"])),
        on_train_end=lambda logs: told.append("end"),
    )
    make_trainer(steps=7, callbacks=[callback]).fit()
    assert told == [(0, 5), (1, 7), "end"]


def test_name_that_is_no_hook_is_refused() -> None:
    with pytest.raises(ValueError, match=r"on_epoch_ends is no hook\. Nearest: on_epoch_end\."):
        LambdaCallback(on_epoch_ends=print)
    with pytest.raises(ValueError, match=r"xyz is no hook\. Hooks are on_train_begin, on_train_end, "):
        LambdaCallback(xyz=print)
