"""Run by test_taylor.py, in one process and in two: trains a net with masks ranked by gradients.

python in_processes.py RUNS
"""

import sys

import torch
from torch import nn

import qprune

RULE = {
    "sites": [{"types": ["ReLU"], "at": "output"}],
    "sparsity": 0.5,
    "importance": "taylor",
    "schedule": {"kind": "stepwise", "start": 2, "every": 2, "times": 2},
}
SPEC = {
    "name": "short",
    "data": {"name": "digits", "train_images": 250},  # the last batch is shared unequally
    "train": {"length": 6, "batch": 64, "optimizer": {"name": "sgd", "lr": 0.05}},
    "prune": [RULE],
}

if __name__ == "__main__":
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 10)
    )
    qprune.fit(SPEC, runs=sys.argv[1], verbose=0, device="cpu", model=net)
