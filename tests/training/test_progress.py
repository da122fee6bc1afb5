import io
import os
import re
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qprune.training import Callback, LambdaCallback, Progress, Stage, Trainer
from qprune.training.callbacks import Logs
from qprune.training.progress import _width

MakeTrainer = Callable[..., Trainer]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rendered(terminal: Terminal) -> list[str]:
    """The lines as a terminal shows them in the end."""
    lines = [line.rstrip("\r").split("\r")[-1].rstrip() for line in terminal.getvalue().split("\n")]
    return [line for line in lines if line]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_file_gets_one_plain_whole_line_an_epoch(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w") as file:
        make_trainer(steps=12, callbacks=[Progress(file=file)]).fit()
    text = (tmp_path / "log.txt").read_bytes().decode()
    assert not set(text) & {"\r", "\x1b", "\b"}
    lines = text.splitlines()
    assert len(lines) == 3
    share, number = r"\d+\.\d\d %", r"\d\.\d+"
    pattern = (
        rf"Epoch 2/3 - \d+ s left - val_accuracy: {share} - accuracy: {share} - val_loss: {number} - loss: {number} - "
        rf"top5: {share} - val_top5: {share} - lr: {number} - \d+ s, \d+ ms/step$"
    )
    assert re.match(pattern, lines[1])
    assert lines[2].startswith("Epoch 3/3 - val_accuracy: ")  # nothing is left


def test_line_goes_to_standard_output(make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(steps=5, callbacks=[Progress()]).fit()
    out, err = capsys.readouterr()
    assert out.startswith("Epoch 1/1 - ")
    assert err == ""


def test_terminal_gets_a_live_line_and_then_the_scores_of_the_epoch(make_trainer: MakeTrainer) -> None:
    terminal = Terminal()
    slow = LambdaCallback(on_train_batch_begin=lambda batch, logs: time.sleep(0.15))  # it is drawn ten times a second
    make_trainer(steps=7, callbacks=[slow, Progress(file=terminal)]).fit()
    assert [line.split(" - ")[0] for line in rendered(terminal)] == ["Epoch 1/2", "Epoch 2/2"]
    live = [line for line in terminal.getvalue().split("\r") if "[" in line]
    assert re.match(r"Epoch 1/2 0/5 \[ {10}\]", live[0])
    assert [line for line in live if re.match(r"Epoch 1/2 \d/5 \[.{10}\] \d+ s left - accuracy: .* % - loss: ", line)]


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal_is_wide(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    make_trainer(steps=17, callbacks=[Progress(file=terminal)]).fit()
    longest = max(map(len, re.split("[\r\n]", terminal.getvalue())))
    assert longest < max(columns, len("Epoch 1/4 0/5 [          ]") + 1)
    assert ("ms/step" in terminal.getvalue()) == (columns == 200)


def test_scores_on_validation_are_seen_at_80_columns(make_trainer: MakeTrainer) -> None:
    terminal = Terminal()
    make_trainer(steps=500, callbacks=[Progress(file=terminal), Stop(at=10)]).fit()
    first, second = rendered(terminal)
    names = [item.split(": ")[0] for item in second.split(" - ")]
    assert names == ["Epoch   2/100", "val_accuracy", "accuracy", "val_loss"]
    assert [item.split(": ")[0] for item in first.split(" - ")] == ["Epoch   1/100", *names[1:]]


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.trainer.stop_training = logs["step"] >= self.at


def test_the_width_is_that_of_the_terminal_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 97))
    with os.fdopen(theirs, "w") as file:
        assert _width(file) == 97
    os.close(ours)
    assert _width(io.StringIO()) == 80


def test_a_headline_names_the_run_and_its_place(make_trainer: MakeTrainer) -> None:
    file = io.StringIO()
    make_trainer(steps=5, callbacks=[Progress(2, file=file, stage=Stage("digits/mine", 2, 3))]).fit()
    assert file.getvalue().splitlines()[:2] == ["", "digits/mine (2 of 3)"]
    alone = io.StringIO()
    make_trainer(steps=5, callbacks=[Progress(2, file=alone, stage=Stage("digits/mine\x1b[2J"))]).fit()
    assert alone.getvalue().splitlines()[0] == "digits/mine\\x1b[2J"


def test_a_headline_says_from_where_a_run_goes_on(make_trainer: MakeTrainer) -> None:
    state = make_trainer(steps=10, callbacks=[Stop(at=5)])
    state.fit()
    file = io.StringIO()
    resumed = make_trainer(steps=10, callbacks=[Progress(2, file=file, stage=Stage("mine"))])
    resumed.resume_from(state.state_dict())
    resumed.fit()
    assert file.getvalue().splitlines()[0] == "mine, from step 5"
    assert file.getvalue().splitlines()[1].startswith("Epoch 2/2 - ")


def test_times_left_are_those_of_all_runs(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 3))
    monkeypatch.setattr("qprune.training.progress.perf_counter", lambda: next(clock))
    file = io.StringIO()
    make_trainer(steps=10, callbacks=[Progress(2, file=file, stage=Stage("mine", 1, 2, later=1195))]).fit()
    one, two = (line.split(" - ")[1] for line in file.getvalue().splitlines()[1:])
    # three seconds passed between two looks at the clock: at the start, and after 5 and 10 steps
    assert (one, two) == ("12 min left", "12 min left")


def test_what_froze_and_which_bits_began_has_a_line(make_joint_trainer: MakeTrainer) -> None:
    file = io.StringIO()
    trainer = make_joint_trainer(callbacks=[Progress(2, file=file)])
    events = trainer.fit().events
    ends = [event["step"] for event in events if event.get("frozen")]
    lines = file.getvalue().splitlines()
    assert [line for line in lines if "froze" in line] == froze(ends)
    assert "  step 17: 4 bits from here, 2 sites" in lines
    place = lines.index("  step 17: 4 bits from here, 2 sites")
    assert (lines[place - 1].split(" - ")[0], lines[place + 1].split(" - ")[0]) == ("Epoch 3/5", "Epoch 4/5")


def froze(ends: list[int]) -> list[str]:
    """One line for each epoch of five steps in which a mask froze."""
    lines = []
    for epoch in sorted({(step - 1) // 5 for step in ends}):
        steps = [step for step in ends if (step - 1) // 5 == epoch]
        at = f"step {steps[0]}" if steps[0] == steps[-1] else f"steps {steps[0]} to {steps[-1]}"
        lines.append(f"  {at}: froze {sum(step <= steps[-1] for step in ends)} of {len(ends)}")
    return lines


def test_what_was_told_before_is_not_told_again_when_training_goes_on(make_joint_trainer: MakeTrainer) -> None:
    first = make_joint_trainer(callbacks=[Stop(at=20)])
    first.fit()
    file = io.StringIO()
    resumed = make_joint_trainer(callbacks=[Progress(2, file=file)])
    resumed.resume_from(first.state_dict())
    resumed.fit()
    assert [line.split(" - ")[0] for line in file.getvalue().splitlines()] == ["Epoch 5/5"]


def test_silence_is_silent(make_trainer: MakeTrainer) -> None:
    terminal = Terminal()
    make_trainer(steps=5, callbacks=[Progress(0, file=terminal)]).fit()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_one_process_of_several_shows_it(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, verbose: str | int
) -> None:
    monkeypatch.setattr(Trainer, "writes", False)
    terminal = Terminal()
    make_trainer(steps=5, callbacks=[Progress(verbose, file=terminal)]).fit()
    assert terminal.getvalue() == ""


def test_live_numbers_ask_no_other_process(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(steps=5, callbacks=[Progress(1, file=Terminal())])
    asked: list[int] = []
    result = trainer.meter.result
    monkeypatch.setattr(trainer.meter, "result", lambda: asked.append(trainer.step) or result())
    trainer.fit()
    assert asked == [5]


def test_progress_changes_no_number(make_trainer: MakeTrainer) -> None:
    watched = make_trainer(steps=9, callbacks=[Progress(1, file=Terminal())]).fit().history
    alone = make_trainer(steps=9).fit().history
    assert {**watched, "seconds": 0} == {**alone, "seconds": 0}


@pytest.mark.parametrize("verbose", ["loud", 3, True])
def test_other_levels_are_refused(verbose: object) -> None:
    with pytest.raises(ValueError, match=r'verbose must be "auto", 0 \(silent\)'):
        Progress(verbose)  # type: ignore[arg-type]


def test_a_line_leaves_out_what_is_counted_per_class(make_trainer: MakeTrainer) -> None:
    progress = Progress()
    progress.set_trainer(make_trainer())
    logs = {"loss": 0.5, "iou_sky": 0.9, "miou": 0.25, "val_iou_sky": 0.8, "val_miou": 0.125}
    assert list(progress._numbers(logs)) == [" - loss: 0.500", " - miou: 25.00 %", " - val_miou: 12.50 %"]
