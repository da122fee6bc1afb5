"""What an installation holds."""

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

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
