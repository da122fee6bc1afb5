"""Run by test_learned.py, in one process and in two: trains a net without batch statistics that learns steps.

python in_processes.py RUNS
"""

import sys

import torch
from torch import nn

import qprune

WEIGHTS = {"sites": [{"types": ["Conv2d", "Linear"], "at": "weight"}], "bits": 4, "per": "channel", "start": 3}
VALUES = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 4, "start": 2}
SPEC = {
    "name": "short",
    "data": {"name": "digits", "train_images": 250},  # the last batch is shared unequally
    "train": {"length": 8, "batch": 64, "optimizer": {"name": "sgd", "lr": 0.05}},
    "quantize": [rule | {"range": "learned"} for rule in (WEIGHTS, VALUES)],
}

if __name__ == "__main__":
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 10)
    )
    qprune.fit(SPEC, runs=sys.argv[1], verbose=0, device="cpu", model=net)
