"""The house rules that a machine can see: imports point down, the public names, what import costs, no print."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import qprune

PACKAGE = Path(str(qprune.__file__)).parent

# A room may import from itself and from lower floors; on its own floor only from the rooms named here.
FLOORS = {
    "errors": 0, "escaping": 0, "float32": 0, "regular_files": 0, "functional": 0, "host": 0, "importances": 0,
    "masking": 0, "numerics": 0, "per_path": 0, "processor": 0, "readable": 0, "rounding": 0, "schedules": 0,
    "spelling": 0, "tables": 0, "version": 0, "zoo": 0,
    "layers": 1, "spec": 1,
    "flow": 2, "declared": 2, "selection": 2, "assemble": 2, "dense": 2, "network_plan": 2, "data": 2, "tasks": 2,
    "plan_text": 2, "complete": 2, "coupling": 2, "exact": 2, "grouping": 2, "sequences": 2, "shrinking": 2, "graph": 2,
    "training": 3, "costs": 3, "figures": 3, "exporting": 3, "calibration": 3, "budget": 3, "run_record": 3, "pages": 3,
    "api": 4, "trained": 4, "searches": 4, "comparison": 4, "reports": 4, "sweeps": 4, "shell": 4,
    "starting": 4, "cli_compare": 5, "cli_export": 5, "cli_list": 5, "cli_search": 5, "cli_start": 5, "cli_train": 5,
    "cli": 5, "__main__": 6, "__init__": 7,
}  # fmt: skip
SAME_FLOOR = {
    "errors": {"escaping"},
    "masking": {"functional"},
    "rounding": {"functional"},
    "schedules": {"errors", "per_path"},
    "tables": {"escaping"},
    "zoo": {"errors", "spelling"},
    "selection": {"flow"},
    "complete": {"flow", "selection"},
    "exact": {"complete", "flow", "selection", "shrinking"},
    "coupling": {"flow", "selection", "shrinking"},
    "grouping": {"coupling", "flow"},
    "assemble": {"complete", "coupling", "exact", "flow", "grouping", "declared", "selection"},
    "dense": {"flow", "assemble", "selection"},
    "sequences": {"flow"},
    "network_plan": {"complete", "flow", "plan_text", "sequences"},
    "plan_text": {"network_plan"},
    "shrinking": {"flow"},
    "graph": {"flow"},
    "tasks": {"data"},
    "training": {"costs", "figures"},
    "exporting": {"costs", "training"},
    "calibration": {"training"},
    "budget": {"calibration", "costs", "exporting", "figures", "training"},
    "run_record": {"costs", "exporting", "training"},
    "pages": {"costs", "figures", "run_record", "training"},
    "api": {"reports"},
    "searches": {"trained"},
    "reports": {"trained"},
    "sweeps": {"api", "comparison"},
}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "qprune":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("qprune.")}
    return rooms


SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
MODULES = {".".join(("qprune", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
           for path in SOURCES}  # fmt: skip


def _imports_of(body: list[ast.stmt]) -> Iterator[str]:
    """Modules of the package that are imported when a file is, not later in a function or for types alone."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield from (deeper if (deeper := f"{node.module}.{a.name}") in MODULES else node.module for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ClassDef | ast.With | ast.Try):
            yield from _imports_of(node.body)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    for other in _imported_rooms(path) - {room}:
        lower = FLOORS[other] < FLOORS[room]
        assert lower or other in SAME_FLOOR.get(room, ()), f"{room} must not import {other}"


def test_no_files_import_each_other_in_a_circle_whichever_is_imported_first() -> None:
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    graph = {name: _with_rooms(name, set(_imports_of(tree.body))) - {name} for name, tree in trees.items()}
    TopologicalSorter(graph).prepare()  # raises a CycleError, which names them


def _with_rooms(name: str, imported: set[str]) -> set[str]:
    """What is imported before it are the rooms around it, but for those that ``name`` itself is in."""
    around = {".".join(other.split(".")[:2]) for other in imported}
    return imported | (around - {".".join(name.split(".")[:2])} & set(MODULES))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_library_code_does_not_print(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_every_test_file_mirrors_a_module_unless_it_is_about_the_whole() -> None:
    whole = Path(__file__).parent
    tests = {path for path in whole.parent.rglob("test_*.py") if path.parent != whole}
    mirrored = {
        path: PACKAGE / path.relative_to(whole.parent).with_name(path.name.removeprefix("test_")) for path in tests
    }
    assert len(mirrored) > 100
    assert not [path for path, module in mirrored.items() if not module.is_file()]


def test_the_tour_of_a_newcomer_is_short() -> None:
    text = (PACKAGE.parent / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    tour = re.findall(r"`([\w/]+\.py)`", text[text.index("A newcomer reads") :].partition("\n\n")[0])
    assert len(tour) == 6
    assert sum(len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in tour) < 1200


def test_public_names() -> None:
    assert sorted(qprune.__all__) == [
        "PlanError", "QpruneError", "ScheduleDriver", "SpecError", "build", "calibrate", "compare", "evaluate",
        "export", "fit", "load", "plan", "predict", "report", "save", "search", "sensitivity", "shrink",
        "shrink_report", "summary", "swap", "sweep", "to_dense",
    ]  # fmt: skip
    assert all(hasattr(qprune, name) for name in qprune.__all__)
    assert sorted(qprune._ROOM_OF) == sorted(qprune.__all__)
    for name, room in qprune._ROOM_OF.items():
        assert getattr(qprune, name) is getattr(importlib.import_module(f"qprune.{room}"), name)


def test_other_names_of_the_package_are_its_rooms() -> None:
    assert isinstance(qprune.flow, ModuleType)
    with pytest.raises(AttributeError, match="module 'qprune' has no attribute 'fits'"):
        _ = qprune.fits
    assert not hasattr(qprune, "__wrapped__")


def test_no_file_hides_behind_a_public_function() -> None:
    assert not {path.name.removesuffix(".py") for path in PACKAGE.iterdir()} & set(qprune.__all__)


def test_dir_shows_the_public_names_the_version_and_the_rooms_that_programs_use() -> None:
    rooms = {"data", "errors", "layers", "schedules", "spec", "tasks", "training", "zoo"}
    assert set(dir(qprune)) == {*qprune.__all__, *rooms, "__version__"}
    assert all(isinstance(getattr(qprune, room), ModuleType) for room in rooms)


def test_the_public_functions_leave_the_heavy_packages_alone() -> None:
    heavy = {"torchvision", "torchmetrics", "tensorboard", "matplotlib", "onnx", "PIL", "torch._dynamo", "triton"}
    code = "import torch, sys; before = set(sys.modules); from qprune import *; print(*(set(sys.modules) - before))"
    assert not heavy & _printed(code)


def test_import_help_and_list_need_no_torch() -> None:
    run = "main([*arguments], standalone_mode=False)"
    code = f"import qprune, sys; from qprune.cli import main; arguments = sys.argv[1:]; {run}; print(*sys.modules)"
    for arguments in (["--help"], ["list"], ["list", "--full"], ["list", "--help"]):
        imported = _printed(code, *arguments)
        assert not {"torch", "numpy", "qprune.zoo"} & imported
        assert {"qprune.cli", "click"} <= imported


def _printed(code: str, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", code, *arguments]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
