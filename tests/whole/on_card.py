"""Run by test_waits.py: trains on a device that is not there (tests/card.py), and tells what waited for it, as JSON.

python on_card.py (classification | segmentation | translation | float16 | shallow | deep | counting) FOLDER
"""

import json
import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from card import CARD, Watched
from few_streets import FEW_STREETS
from tiny_runs import DIGITS, RELUS

import qprune
from qprune.data import NAMED
from qprune.training import Callback

MASKS = {"kind": "stepwise", "start": "2it", "every": "3it", "times": 2}
GENERATOR = {"types": ["Conv2d"], "paths": ["generator_ab.*"]}
ADAM = {"optimizer": {"name": "adam", "lr": 0.001}, "batch": 4, "length": "10it", "validate_every": "5it"}


def rules(masked, convs=None):
    return {
        "prune": [{"sites": masked, "sparsity": 0.5, "schedule": MASKS}],
        "quantize": [{"sites": [(convs or {"types": ["Conv2d"]}) | {"at": "weight"}], "bits": 4, "start": 7}],
    }


def conv(name, channels=6):
    return {"name": name, "type": "Conv2d", "out_channels": channels, "kernel_size": 3, "padding": 1}


def residual(blocks):
    """Layers whose masks do not agree at sums, so that a cut aligns some of them."""
    layers = [conv("stem"), {"name": "act0", "type": "ReLU"}]
    for i in range(blocks):
        layers += [
            conv(f"first{i}"), {"name": f"norm{i}", "type": "BatchNorm2d"}, {"name": f"inner{i}", "type": "ReLU"},
            conv(f"second{i}"), {"name": f"add{i}", "type": "Add", "from": [f"second{i}", f"act{i}"]},
            {"name": f"act{i + 1}", "type": "ReLU"},
        ]  # fmt: skip
    return [*layers, {"type": "Flatten"}, {"name": "classifier", "type": "Linear", "out_features": 10}]


def cutting(blocks):
    """A training of a network with active quantizers, out of which channels are cut when its masks are frozen."""
    quantized = [{"types": ["Conv2d", "Linear"], "at": "weight"}, *RELUS]
    return {
        "name": "cutting",
        **DIGITS,
        "model": {"layers": residual(blocks)},
        "prune": [{"sites": RELUS, "sparsity": 0.5, "schedule": MASKS}],
        "quantize": [{"sites": quantized, "bits": 8, "start": 4}],
        "train": DIGITS["train"] | {"ema": 0.9, "shrink": "as-frozen", "length": "20it", "validate_every": "20it"},
    }


CLASSIFICATION = {
    "name": "classification",
    **DIGITS,
    **rules(RELUS),
    "train": DIGITS["train"] | {"ema": 0.9, "clip_norm": 1.0, "accumulate": 2},
}
SPECS = {
    "classification": CLASSIFICATION,
    "segmentation": {
        "name": "segmentation",
        "data": {"name": "streets", "size": [32, 48], "train_images": 16},
        "task": {"name": "segmentation", "hardest": 0.25, "class_weights": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]},
        "model": {"arch": "unet", "width": 0.05},
        "train": ADAM | {"ema": 0.9},
        **rules(RELUS),
    },
    "translation": {
        "name": "translation",
        "data": {"name": "streets", "translate": "BtoA", "unpaired": True, "size": 32, "train_images": 16},
        "task": {"name": "cyclegan"},
        "model": {"arch": "cyclegan", "width": 0.05, "width_ba": 0.05, "width_discriminators": 0.05},
        "train": ADAM,
        **rules([GENERATOR | {"at": "input", "skip": [0]}], GENERATOR),
    },
    "shallow": cutting(blocks=1),
    "deep": cutting(blocks=3),
    "float16": CLASSIFICATION | {"train": DIGITS["train"] | {"precision": "float16"}},
}


class Reads(Callback):
    """Notes what waited since the last note: before training, in each step, at each validation and after it."""

    def __init__(self, watched):
        self.watched, self.notes = watched, []

    def note(self, what):
        self.notes.append([what, self.trainer.step, dict(self.watched.waits)])
        self.watched.waits.clear()

    def on_train_begin(self, logs):
        self.note("begin")

    def on_train_batch_begin(self, batch, logs):
        self.note("saving")

    def on_train_batch_end(self, batch, logs):
        self.note("step")

    def on_epoch_end(self, epoch, logs):
        self.note("validation")


def train(name, folder):
    with Watched() as watched:
        reads = Reads(watched)
        history = qprune.fit(SPECS[name], device="card:0", runs=folder, verbose=0, callbacks=[reads])
    events = sorted({event["step"] for event in history.events})
    scored = all(torch.tensor(list(scores.values())).isfinite().any() for scores in history.scores.values())
    return {"notes": reads.notes, "events": events, "scored": scored}


def count():
    """What each of these operations was counted as."""
    counted = {}
    with Watched() as watched:
        x, i = torch.arange(6.0, device=CARD), torch.tensor([1, 2]).to(CARD)
        cases = {
            "item": lambda: x.sum().item(), "bool": lambda: bool(x.sum() > 1), "tolist": lambda: x.tolist(),
            "cpu": lambda: x.cpu(), "to": lambda: x.to("cpu", torch.float64), "nonzero": lambda: x.nonzero(),
            "mask": lambda: x[x > 2], "equal": lambda: torch.equal(x, x + 1), "bincount": lambda: i.bincount(),
            "unique": lambda: i.unique(), "upload": lambda: torch.tensor([1.0], device=CARD),
            "put": lambda: x.copy_(torch.ones(6)), "indices": lambda: x[torch.tensor([0])],
            "arithmetic": lambda: (x * 2 + torch.tensor(1.0)).sort(), "fill": lambda: x.fill_(1.0),
            "index": lambda: x[i], "where": lambda: torch.where(x > 2, x, 0), "async": lambda: torch.ones(3).to(
                CARD, non_blocking=True), "many": lambda: qprune.host.on_host([x, i, x > 1]),
        }  # fmt: skip
        for name, case in cases.items():
            watched.waits.clear()
            case()
            counted[name] = Counter.total(watched.waits)
        refused = []
        for mixed in (lambda: x + torch.ones(6), lambda: torch.cat([x, torch.ones(1)]), lambda: torch.ones(6).add_(x)):
            try:
                mixed()
            except RuntimeError as error:
                refused.append("card and on the host" in str(error))
    return {"counted": counted, "refused": refused}


if __name__ == "__main__":
    name, folder = sys.argv[1:]
    NAMED["streets"] = FEW_STREETS
    json.dump(count() if name == "counting" else train(name, folder), sys.stdout)
