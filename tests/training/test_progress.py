import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qprune.training import Progress, Trainer
from qprune.training.progress import _numbers

MakeTrainer = Callable[..., Trainer]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_file_gets_one_line_an_epoch(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w") as file:
        make_trainer(steps=12, callbacks=[Progress(file=file)]).fit()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 3
    pattern = (
        r"Epoch 3/3 - \d+s \d+ms/step - loss: \d\.\d{4} - accuracy: \d\.\d{4} - .*val_accuracy: \d\.\d{4} .*- lr: "
    )
    assert re.match(pattern, lines[2])


def test_line_goes_to_standard_output(make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(steps=5, callbacks=[Progress()]).fit()
    out, err = capsys.readouterr()
    assert out.startswith("Epoch 1/1 - ")
    assert err == ""


def test_terminal_gets_a_live_line(make_trainer: MakeTrainer) -> None:
    terminal = Terminal()
    make_trainer(steps=7, callbacks=[Progress(file=terminal)]).fit()
    lines = [line.split("\r")[-1] for line in terminal.getvalue().split("\n")]
    assert [lines[0], lines[2]] == ["Epoch 1/2", "Epoch 2/2"]
    assert re.match(r"5/5 \[[█#]+\] 00:00 \d+ms/step - loss: \d\.\d{4} - accuracy: .* - val_loss: ", lines[1])
    assert re.match(r"2/2 \[[█#]+\] ", lines[3])


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


def test_small_numbers_do_not_read_as_zero() -> None:
    logs = {"a": 0.0, "b": 0.5, "c": 0.00012, "d": 1234.5}
    assert _numbers(logs) == " - a: 0.0000 - b: 0.5000 - c: 1.20e-04 - d: 1234.5000"


@pytest.mark.parametrize("verbose", ["loud", 3, True])
def test_other_levels_are_refused(verbose: object) -> None:
    with pytest.raises(ValueError, match=r'verbose must be "auto", 0 \(silent\)'):
        Progress(verbose)  # type: ignore[arg-type]


def test_a_line_leaves_out_what_is_counted_per_class() -> None:
    logs = {"loss": 0.5, "iou_sky": 0.9, "miou": 0.25, "val_iou_sky": 0.8, "val_miou": 0.125}
    assert _numbers(logs) == " - loss: 0.5000 - miou: 0.2500 - val_miou: 0.1250"
