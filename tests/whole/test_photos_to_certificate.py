"""From photos to the certificate of an integer file: a network of torchvision by name, and a class of one's own."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import qprune

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "cifar10.tar.gz"
STEPS, IMAGES = 100, {"train": 60, "test": 20}  # steps of each run, and photos of each class

CONVS = {"types": ["Conv2d"], "at": "input", "skip": [0]}
WEIGHTS = {"types": ["Conv2d", "Linear"], "at": "weight"}
INPUTS = {"types": ["Conv2d", "Linear"], "at": "input"}

OWN = """
import sys
import torch
from torch import nn
import qprune


class Block(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.short = nn.Conv2d(channels, out, 1, stride)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + self.short(x))


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Block(16, 16, 2), Block(16, 32, 2), Block(32, 64, 2))
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


torch.set_num_threads(1)
for spec in eval(sys.argv[1]):
    torch.manual_seed(0)
    qprune.fit(spec, model=Mine(), runs="runs", verbose=0)
"""


@pytest.fixture
def photos(tmp_path, monkeypatch):
    if not PHOTOS.exists():
        pytest.skip("the CIFAR-10 photos are not on this machine")
    monkeypatch.chdir(tmp_path)
    with tarfile.open(PHOTOS) as archive:
        found = (member for member in archive if member.isfile())
        few = [each for each in found if int(Path(each.name).stem) < IMAGES[each.name.split("/")[1]]]
        archive.extractall(tmp_path, few, filter="data")
    return tmp_path / "cifar10"


def chain(root, model):
    """Dense, pruned, and with 8 bits: tables of three runs, each of which starts from the one before."""
    train = {"length": f"{STEPS}it", "batch": 32, "optimizer": {"name": "adam", "lr": 1e-3}}
    data = {"name": "folder", "root": str(root), "size": 64, "validation": 0.0}
    base = {"data": data, "train": train, **({"model": model} if model else {})}
    half = {"sites": [CONVS], "sparsity": 0.5, "finish": "60%", "schedule": {"kind": "layerwise"}}
    kept = {"sites": [CONVS], "schedule": {"kind": "inherited"}}
    eight = [{"sites": [WEIGHTS], "bits": 8, "per": "channel", "start": STEPS // 2},
             {"sites": [INPUTS], "bits": 8, "start": STEPS // 2}]  # fmt: skip
    return [
        base | {"name": "photos/dense"},
        base | {"name": "photos/pruned", "init": "photos/dense", "prune": [half]},
        base | {"name": "photos/w8a8", "init": "photos/pruned", "prune": [kept], "quantize": eight, "complete": True},
    ]


def check(run, chance=0.1):
    """What is left of the run is smaller, and its file computes with integers what it does."""
    dense, small = qprune.summary("runs/photos/dense"), qprune.summary(run)
    assert small.total.parameters_kept < 0.75 * dense.total.parameters
    scores = qprune.evaluate(run)
    assert scores["accuracy"] > 1.5 * chance or STEPS < 100
    certificate = qprune.export(run, "model.onnx")
    assert not certificate.real_layers
    assert certificate.predictions > 0.95
    assert certificate.scores["accuracy"] == pytest.approx((scores["accuracy"],) * 2, abs=0.03)
    assert Path("model.onnx").stat().st_size < 0.5 * (Path("runs/photos/dense/model.pt").stat().st_size)


@pytest.mark.slow
def test_resnet18_of_torchvision_by_name(photos):
    for table in chain(photos, {"arch": "torchvision/resnet18"}):
        qprune.fit(table, runs="runs", verbose=0)
    assert "resize = 73" in Path("runs/photos/dense/spec.toml").read_text()
    check("runs/photos/w8a8")


@pytest.mark.slow
def test_a_class_that_the_process_which_opens_the_run_does_not_have(photos):
    Path("own.py").write_text(OWN)
    tables = chain(photos, None)
    subprocess.run([sys.executable, "own.py", repr(tables)], check=True)
    assert "Mine" not in globals()
    check("runs/photos/w8a8")
