"""The benchmark for GPUs runs to its end where there is none, on small networks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "benchmarks/gpu.py")]


@pytest.mark.slow
def test_rehearsal_measures_everything_and_says_that_it_is_one(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--quick", "--minutes", "20", "--out", str(tmp_path / "report")]
    done = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rehearsal"]
    assert report["not_measured"] == []
    tables = {table: [row for row in report["rows"] if row["table"] == table] for table in
              ("correct", "steps", "training", "resume", "tests")}  # fmt: skip
    assert [row["codes"].split(" of ")[0] for row in tables["correct"]] == ["100.0000 %"] * 4  # the CPU beside itself
    assert {row["row"].split(":")[0] for row in tables["steps"]} == {
        "mobilenetv2", "densenet121", "resnet50", "unet", "resnet_generator",
    }  # fmt: skip
    assert all(row["same"] == "yes" for row in tables["resume"])
    assert "passed" in tables["tests"][0]["outcome"] or "skipped" in tables["tests"][0]["outcome"]
    text = (tmp_path / "report.md").read_text()
    assert "A rehearsal on small networks without a GPU: its times mean nothing." in text
    assert "| mobilenetv2: joint, bfloat16 |" in text


def test_what_the_minutes_do_not_suffice_for_is_named(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--quick", "--minutes", "0", "--out", str(tmp_path / "report")]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows"] == []
    assert "mobilenetv2: joint (no time was left)" in report["not_measured"]
    assert "- unet: dense (no time was left)" in done.stdout
