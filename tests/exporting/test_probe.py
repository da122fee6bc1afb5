"""Kernels of processors without VNNI, on a processor that has it: it is hidden from the runtime."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CANNOT = 77  # the exit status where the processor cannot hide anything


def facts(**environment: str) -> dict[str, bool]:
    call = [sys.executable, str(HERE / "equal_here.py")]
    done = subprocess.run(call, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        pytest.skip("this processor always says what it has")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64" or shutil.which("cc") is None,
    reason="hides instructions of x86-64 by a library compiled for Linux",
)
@pytest.mark.parametrize("options", [[], ["-DKEEP_AVX512"]], ids=["avx2", "avx512"])
def test_without_vnni_saturation_is_seen_and_uint8_weights_are_exact(options: list[str], tmp_path: Path) -> None:
    library = tmp_path / "without_vnni.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", *options, str(HERE / "without_vnni.c"), "-o", str(library)], check=True
    )
    assert facts(LD_PRELOAD=str(library)) == {"saturates": True, "int8": False, "uint8": True}


def test_file_with_the_weights_that_are_right_here_equals_its_network() -> None:
    found = facts()
    assert found["uint8"]
    assert found["int8"] is not found["saturates"]
