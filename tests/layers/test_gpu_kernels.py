import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent


def printed(file, **environment):
    """What a process of its own prints: Triton decides when it is imported whether it interprets."""
    command = [sys.executable, "-W", "ignore::RuntimeWarning", str(HERE / file)]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def interpreted():
    return printed("in_the_interpreter.py", TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return printed("compiled_kernels.py", TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))


@pytest.mark.parametrize(
    ("compare", "least"),
    [
        ("compare_sites", 150),
        ("compare_weights", 60),
        ("compare_rows", 100),
        ("compare_gradients", 200),
        ("compare_large", 4),
    ],
)
def test_kernels_compute_what_plain_functions_do(interpreted, compare, least):
    count, different = interpreted[compare]
    assert count >= least
    assert different == []


def test_kernels_can_be_compiled_with_everything_and_with_nothing(compiled):
    assert len(compiled) == 7


def test_compiled_kernels_divide_as_ieee_says(compiled):
    divisions = {each for found in compiled.values() for each in found if each.startswith("div")}
    assert divisions == {"div.rn.f32"}


def test_nothing_compiled_is_added_up_in_the_order_in_which_programs_happen_to_run(compiled):
    shared = {each for found in compiled.values() for each in found if each.startswith(("atom", "red"))}
    assert shared
    assert all(".max." in each or ".min." in each for each in shared)


def test_steps_are_rounded_before_they_are_multiplied(compiled):
    assert not [
        each for name in ("everything", "everything, per tensor", "rows") for each in compiled[name] if "fma" in each
    ]
