import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import qprune
from qprune import version
from qprune.training import checkpoint


def test_the_version_is_that_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert qprune.__version__ == project["version"]


def test_checkpoints_carry_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", {"step": 5})
    assert checkpoint.load(tmp_path / "last.pt")["written_by"]["qprune"] == qprune.__version__


def test_a_source_tree_that_was_never_installed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", missing)
    assert version.installed_version() == "unknown"
