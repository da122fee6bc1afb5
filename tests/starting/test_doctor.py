"""The doctor says what there is, as the system has it, and what is missing that training needs."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from qprune.cli import main
from qprune.starting import doctor, examine


def findings(runs: Path) -> dict[str, str]:
    return {finding.what: finding.found for finding in examine(runs)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "STEPS", 2)


def test_it_names_versions_devices_packages_and_the_time_of_a_step(tmp_path: Path) -> None:
    told = findings(tmp_path)
    assert told["qprune"].startswith(metadata.version("qprune"))
    assert f"torch {metadata.version('torch')}" in told["packages"]
    assert f"torch uses {torch.get_num_threads()}" in told["CPU"]
    assert told["trains on"] == ("cuda" if torch.cuda.is_available() else "cpu")
    number = r"[\d.,]+ ms"
    assert re.match(rf"{number} dense, {number} with 8-bit weights and activations", told["a step"])


def test_it_writes_nothing(tmp_path: Path) -> None:
    assert findings(tmp_path / "runs")[f"folder of runs, {tmp_path / 'runs'}"] == "can be written"
    assert list(tmp_path.iterdir()) == []


def test_an_extra_that_is_not_installed_comes_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["torch>=2", 'nowhere>=1 ; extra == "rare"', 'torch; extra == "plots"']
    )
    told = findings(tmp_path)
    assert told["extras"] == "plots"
    assert told["extra rare"] == 'not installed; if you want it: pip install "qprune[rare]"'


def test_the_extras_are_those_of_the_package() -> None:
    assert {"", "onnx", "openvino", "qonnx", "plots", "timm", "dev"} <= doctor._requirements().keys()
    assert {"torch", "click"} <= set(doctor._requirements()[""])


def test_a_package_that_is_missing_has_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(main, ["doctor", "--runs", str(tmp_path)]).exit_code == 0
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2", "nowhere>=1"])
    result = CliRunner().invoke(main, ["doctor", "--runs", str(tmp_path)])
    assert result.exit_code == 1
    assert "MISSING  nowhere: is missing: pip install nowhere\n" in result.output


def test_a_torchvision_that_does_not_fit_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    (found,) = (finding for finding in doctor._packages() if finding.is_needed)
    assert "operator torchvision::nms does not exist" in found.found
    assert "pip install --force-reinstall torch torchvision" in found.found


def test_a_folder_of_runs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = doctor._folder(tmp_path / "file/runs")
    assert found.is_needed
    assert str(found).endswith(f"cannot be written, as {tmp_path / 'file'} is no folder; choose one with QPRUNE_RUNS")
