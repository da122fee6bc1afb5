"""Runs of seconds that several tests share: a chain on a few digits, and one whose names are hostile."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

import qprune

LAYERS = [
    {"name": "conv1", "type": "Conv2d", "out_channels": 6, "kernel_size": 3},
    {"name": "act1", "type": "ReLU"},
    {"name": "conv2", "type": "Conv2d", "out_channels": 8, "kernel_size": 3},
    {"name": "act2", "type": "ReLU"},
    {"type": "Flatten"},
    {"name": "classifier", "type": "Linear", "out_features": 10},
]
TRAIN = {"length": "2ep", "batch": 32, "optimizer": {"name": "sgd", "lr": 0.05}}
DIGITS = {"model": {"layers": LAYERS}, "data": {"name": "digits", "train_images": 135}, "train": TRAIN}
RELUS = [{"types": ["ReLU"], "at": "output"}]
HALF = {"init": "net/dense", "prune": [{"sites": RELUS, "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 5}}]}
W4 = {
    "init": "net/half",
    "prune": [{"sites": RELUS, "schedule": {"kind": "inherited"}}],
    "quantize": [
        {"sites": [{"types": ["Conv2d", "Linear"], "at": "weight"}], "bits": 4, "start": 2},
        {"sites": RELUS, "bits": 8, "start": 2},
    ],
}
SCRIPT = '<script>document.title = "owned"<'  # a folder has no slash in its name
FORMULA = r"$\frac$_<b>&amp;"
IMG = "<img src=x onerror=alert(1)>"


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="qprune-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def chain() -> Path:
    """A root with ``net/dense``, ``net/half`` (pruned) and ``net/w4`` (quantized, too), not to be changed."""
    root = _folder()
    for name, rules in {"net/dense": {}, "net/half": HALF, "net/w4": W4}.items():
        about = {"about": f"A tiny net, {name}."}
        qprune.fit({"name": name} | about | DIGITS | rules, runs=root, verbose=0)
    return root


def chain_at(folder: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(chain(), folder / "runs"))


@cache
def hostile() -> Path:
    """A run, ``<i>net``, on classes whose names are markup and formulas, with more of it in its own texts."""
    root = _folder()
    numbers = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in (SCRIPT, FORMULA, IMG):
            (root / "data" / split / name).mkdir(parents=True)
            for index in range(8):
                pixels = numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "data" / split / name / f"{index}.png")
    layers = [*LAYERS[:2], {"type": "Flatten"}, {"name": "classifier", "type": "Linear", "out_features": 3}]
    train = TRAIN | {"length": "1ep", "batch": 8}
    data = {"name": "folder", "root": str(root / "data"), "size": 8}
    spec = {"name": "<i>net", "about": f"{IMG} {SCRIPT}/script>", "model": {"layers": layers}, "data": data}
    qprune.fit(spec | {"train": train}, runs=root, verbose=0)
    return root
