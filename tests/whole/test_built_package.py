"""What people install works: the wheel, built from the source distribution, in an environment of its own."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from qprune.spec import list_specs

ROOT = Path(__file__).parents[2]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOP = [
    "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "Makefile", "MANIFEST.in", "README.md",
    "pyproject.toml",
]  # fmt: skip
FOLDERS = ["benchmarks", "docs", "examples", "specs", "tests"]
FILES = {".md", ".png", ".py", ".c", ".toml", ".npz", ".css", ".html", ".ipynb"}

pytestmark = pytest.mark.slow


def run(python, *arguments, folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "QPRUNE"))}
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A Python with the wheel, and with the packages at hand in place of downloads; and the two distributions."""
    folder = tmp_path_factory.mktemp("made")
    skipped = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "runs", "_build", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=skipped)
    shutil.copy(ROOT / ".dockerignore", folder / "source")
    run(sys.executable, "-m", "venv", "fresh", folder=folder)
    python = folder / "fresh/bin/python"
    run(python, "-m", "pip", "install", "--quiet", *SETUP["build-system"]["requires"], folder=folder)
    backend = "from setuptools import build_meta; build_meta.build_{}('../made')"
    run(python, "-c", backend.format("sdist"), folder=folder / "source")
    (sdist,) = (folder / "made").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(python, "-c", backend.format("wheel").replace("../made", "../../made"), folder=unpacked)
    (wheel,) = (folder / "made").glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    (site,) = (folder / "fresh/lib").glob("python*/site-packages")
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "zz_at_hand.pth").write_text("\n".join(others), encoding="utf-8")  # behind the wheel, which so comes first
    empty = folder / "empty"
    empty.mkdir()
    return python, sdist, wheel, empty


def kept(folder):
    """The files of the project below a folder that a distribution must have, as paths from the root."""
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in FILES and "runs" not in path.parts]
    return {path.relative_to(ROOT).as_posix() for path in files if not {"__pycache__", "_build"} & {*path.parts}}


def test_the_source_distribution_is_whole(made):
    with tarfile.open(made[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not {*TOP}.union(*(kept(folder) for folder in (*FOLDERS, "qprune"))) - names
    assert not [name for name in names if name.endswith(".pyc") or "docs/_build" in name]


def test_the_wheel_has_the_package_and_the_specs_and_nothing_else(made):
    names = {name for name in zipfile.ZipFile(made[2]).namelist() if ".dist-info/" not in name}
    assert names - {"qprune/specs/__init__.py"} == kept("qprune") | {f"qprune/{name}" for name in kept("specs")} | {
        "qprune/py.typed"
    }


def test_it_is_the_wheel_that_runs(made):
    python, _, wheel, folder = made
    where = run(python, "-c", "import qprune; print(qprune.__file__, qprune.__version__)", folder=folder)
    assert "/fresh/lib/" in where
    assert where.split()[1] == SETUP["project"]["version"] == wheel.name.split("-")[1]


def test_specs_and_digits_come_with_it(made):
    python, _, _, folder = made
    listed = run(python.with_name("qprune"), "list", "--full", folder=folder)
    assert "a75_w4a4" in listed
    assert len(listed.splitlines()) > 100
    found = run(python, "-c", "from qprune.spec import list_specs; print(len(list_specs()))", folder=folder)
    assert int(found) == len(list_specs())
    trained = run(
        python.with_name("qprune"), "fit", "digits/baseline", "--quiet", "--set", "train.length=2ep",
        "--set", "data.train_images=64", folder=folder,
    )  # fmt: skip
    assert "digits/baseline" in trained


WITHOUT = {
    "onnx": ("onnx", "qprune.export(net, 'mine.onnx', example)"),
    "plots": ("matplotlib", "qprune.training.History({'loss': [1.0], 'step': [1]}).plot()"),
    "qonnx": ("onnx", "qprune.export(net, 'mine.onnx', example, dialect='qonnx')"),
    "openvino": ("openvino", "qprune.export(net, 'mine.onnx', example, also=['openvino'])"),
    "report": ("jinja2", "qprune.fit(DIGITS, overwrite=True, verbose=0); qprune.report('digits/short')"),
    "mlflow": ("mlflow", "qprune.fit(DIGITS, overwrite=True, overrides=['train.log=[\"mlflow\"]'])"),
    "wandb": ("wandb", "qprune.fit(DIGITS, overwrite=True, overrides=['train.log=[\"wandb\"]'])"),
    "timm": ("timm", "qprune.build({'data': {'name': 'digits'}, 'model': {'arch': 'timm/resnet18'}, 'train': TRAIN})"),
}


@pytest.mark.parametrize("extra", sorted(SETUP["project"]["optional-dependencies"].keys() - {"dev", "docs"}))
def test_what_needs_an_extra_names_it(extra, made):
    package, call = WITHOUT[extra]
    assert any(need.startswith(package) for need in SETUP["project"]["optional-dependencies"][extra])
    program = f"""
import sys
sys.modules[{package!r}] = None
import torch, qprune
TRAIN = {{"length": 1, "batch": 8, "optimizer": {{"name": "sgd", "lr": 0.1}}}}
DIGITS = {{"name": "digits/short", "data": {{"name": "digits"}}, "model": {{"arch": "resnet20"}}, "train": TRAIN}}
net, example = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), torch.rand(1, 3, 8, 8)
try:
    {call}
except qprune.QpruneError as error:
    print(error)
"""
    told = run(made[0], "-c", program, folder=made[3])
    assert f'pip install "qprune[{"onnx" if extra == "qonnx" else extra}]"' in told, told
