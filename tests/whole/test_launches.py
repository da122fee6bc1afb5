"""What a training step launches on a GPU, counted as `benchmarks/launches.py` does."""

import importlib.util
from functools import cache
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "launches.py"
SPEC = importlib.util.spec_from_file_location("launches", FILE)
launches = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(launches)


@cache
def dense(name):
    return launches.count(name, False, False, 1).total()


@pytest.mark.parametrize(
    ("name", "at", "most"),
    [
        ("mobilenetv2", 1, 1.35),
        ("mobilenetv2", launches.NEVER, 1.375),
        ("densenet121", 1, 1.2),
        ("densenet121", launches.NEVER, 1.2),
    ],
    ids=["mobilenetv2-steady", "mobilenetv2-measuring", "densenet121-steady", "densenet121-measuring"],
)
def test_step_that_prunes_and_quantizes_launches_little_more_than_a_dense_one(name, at, most):
    assert 1 < launches.count(name, True, True, at).total() / dense(name) <= most


@pytest.mark.parametrize("at", [1, launches.NEVER], ids=["steady", "measuring"])
def test_each_site_launches_once_forwards(at):
    found = launches.count("mobilenetv2", True, True, at)
    assert found["compress_site"] == 54 + 35 + 18  # convolutions, rectifiers, normalizations after blocks
    assert found["pass_gradient"] == 35 + 18
    assert not {"relu", "hardtanh", "bitwise_and", "round", "abs"} & set(found)
