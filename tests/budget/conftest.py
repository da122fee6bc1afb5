"""A small trained network of the embedded digits, and its run folder."""

from pathlib import Path

import pytest
from torch import Tensor, nn

import qprune
from qprune.budget import take_images
from qprune.training import open_model

SHORT = ["train.length=4ep"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    qprune.fit("digits/baseline", overrides=SHORT, runs=root, verbose=0)
    return root


@pytest.fixture(scope="session")
def net(runs: Path) -> nn.Module:
    return qprune.load("digits/baseline", runs=runs)


@pytest.fixture(scope="session")
def images(runs: Path) -> list[Tensor]:
    return take_images(open_model("digits/baseline", runs).split("train"), 96)
