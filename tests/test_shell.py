"""What every command does alike: widths, `-v`, errors as sentences."""

import logging
import os
import re
import subprocess
import sys
import termios
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qprune.errors import DataError
from qprune.shell import Commands, columns, explaining_errors, say


@click.group(cls=Commands)
def program() -> None:
    """Do nothing."""


@program.command()
@explaining_errors
def level() -> None:
    """Say how much is logged."""
    say(logging.getLevelName(logging.getLogger().level))


@program.command()
@explaining_errors
def fail() -> None:
    """Fail."""
    raise DataError("The \x1b[2Jfile is empty. Fill it.")


@program.command()
@explaining_errors
def full() -> None:
    """Meet a full disk."""
    raise OSError(28, "No space left on device", "there.txt")


@pytest.mark.parametrize("command", [["-v", "level"], ["level", "-v"], ["level", "--verbose"], ["-v", "level", "-v"]])
def test_v_stands_before_and_after_a_command_and_holds_for_it_alone(command: list[str]) -> None:
    before = logging.getLogger().level
    assert CliRunner().invoke(program, command).output == "INFO\n"
    assert logging.getLogger().level == before
    assert CliRunner().invoke(program, ["level"]).output != "INFO\n"


def test_errors_are_sentences_without_control_characters() -> None:
    result = CliRunner().invoke(program, ["fail"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "qprune: The \\x1b[2Jfile is empty. Fill it.\n"
    result = CliRunner().invoke(program, ["full"])
    assert result.exit_code == 2
    assert result.stderr.startswith("qprune: there.txt cannot be used: No space left on device. Check the path")


def test_a_pipe_has_no_columns() -> None:
    code = "from qprune.shell import columns; print(columns())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "None\n"
    assert CliRunner().invoke(click.command(lambda: say(columns()))).output == "None\n"


SPEC = """
format = 1
[data]
name = "digits"
train_images = 135
[[model.layers]]
name = "conv"
type = "Conv2d"
out_channels = 6
kernel_size = 3
[[model.layers]]
name = "act"
type = "ReLU"
[[model.layers]]
type = "Flatten"
[[model.layers]]
name = "classifier"
type = "Linear"
out_features = 10
[train]
length = "3ep"
batch = 32
optimizer = { name = "sgd", lr = 0.05 }
"""


def on_a_terminal(folder: Path, width: int, *arguments: str) -> list[str]:
    """The lines that a terminal of so many columns shows in the end."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    command = [sys.executable, "-m", "qprune", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    told = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # what Linux says when the program is gone
            part = b""
        if not part:
            break
        told += part
    os.close(ours)
    assert process.wait() == 0
    lines = told.decode().replace("\r\n", "\n").split("\n")
    assert max(len(part) for line in lines for part in line.split("\r")) <= width
    return [line.split("\r")[-1].rstrip() for line in lines]


def test_a_training_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SPEC)
    lines = on_a_terminal(tmp_path, 80, "fit", "tiny.toml")
    assert lines[0] == "tiny"
    share, number = r"\d+\.\d\d %", r"[\d.e-]+"
    assert re.fullmatch(rf"Epoch 3/3 - val_accuracy: {share} - accuracy: {share} - val_loss: {number}.*", lines[3])
    assert "parameters" in lines[5]  # of a head in two lines
    assert lines[6].split()[:3] == ["run", "accuracy", "kept"]
