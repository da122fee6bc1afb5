"""What an installation holds."""

import json
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import qprune
from qprune.cli import main
from qprune.spec import find_spec

ROOT = Path(__file__).parents[2]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_package_is_named():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "qprune").rglob("__init__.py")}
    assert sorted(SETUP["packages"]) == sorted({folder.replace("/", ".") for folder in folders} | {"qprune.specs"})


def test_files_that_are_no_code_are_named():
    package = ROOT / "qprune"
    other = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    folders = {name: ROOT / SETUP["package-dir"].get(name, name.replace(".", "/")) for name in SETUP["package-data"]}
    patterns = [folders[name].glob(pattern) for name, found in SETUP["package-data"].items() for pattern in found]
    named = {path for found in patterns for path in found}
    assert {path for path in named if path.is_relative_to(package)} == other
    assert named - other == set((ROOT / "specs").rglob("*.toml"))


def test_specs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_spec("digits/a75_w4a4").is_file()


def test_the_command_is_the_one_of_the_module():
    (script,) = entry_points(group="console_scripts", name="qprune")
    assert script.load() is main
    assert (Path(qprune.__file__).parent / "py.typed").is_file()


def test_the_container_does_what_the_quickstart_does():
    (command,) = re.findall(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"\n\t$(BIN)/{' '.join(json.loads(command))}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["CITATION.cff", "pyproject.toml", "docs/index.md"])
def test_the_article_is_named_by_its_doi(file):
    assert "10.3390/app12157829" in (ROOT / file).read_text(encoding="utf-8")


def test_the_article_has_the_same_place_everywhere():
    told = dict(re.findall(r"^  (volume|issue|start|year): (\d+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M))
    place = "{year}, {volume}({issue}), {start}".format(**told)
    for file in ("README.md", "docs/index.md", "docs/explanation/method.md"):
        assert place in (ROOT / file).read_text(encoding="utf-8")
