"""A folder to write specs into, and the lines that reading one gives."""

from copy import deepcopy
from pathlib import Path

import pytest

from qprune.errors import SpecError
from qprune.spec import read_spec

TRAIN = {"length": "3ep", "batch": 7, "optimizer": {"name": "sgd", "lr": 0.1}}


@pytest.fixture
def table():
    """The smallest complete spec."""
    return {"data": {"name": "digits"}, "model": {"arch": "mobilenetv2"}, "train": deepcopy(TRAIN)}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file below the current folder, which is empty at first."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, content, head="format = 1\n"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else (head + content).encode())
        return path

    return write_file


@pytest.fixture
def told():
    """The lines of the error that reading gives; none if it gives none."""

    def read(source, overrides=()):
        try:
            read_spec(source, overrides)
        except SpecError as error:
            return list(error.mistakes)
        return []

    return read


@pytest.fixture
def complete(write):
    """Write a complete spec whose last tables are given."""
    recipe = '[data]\nname = "digits"\n[model]\narch = "mobilenetv2"\n[train]\nlength = "3ep"\nbatch = 7\n'
    optimizer = '[train.optimizer]\nname = "sgd"\nlr = 0.1\n'
    return lambda name, head="", tail="": write(name, head + recipe + optimizer + tail)
