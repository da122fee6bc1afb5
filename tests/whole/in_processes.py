"""Run by test_processes.py, in several processes: trains without batch statistics. One may be asked to end, or fail.

python in_processes.py SPEC RUNS (trains | preempted | fails | resumed)
"""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torchmetrics import MeanSquaredError, MetricCollection

sys.path.insert(0, str(Path(__file__).parents[1]))
from attrs import evolve
from few_streets import FEW_STREETS

import qprune
from qprune import zoo
from qprune.data import NAMED, load_data
from qprune.spec import read_spec
from qprune.training import Callback


class Regression:
    """Smooth, unlike the losses of a GAN, which blow rounding up."""

    monitor, mode = "error", "min"

    def loss(self, output, target):
        return nn.functional.mse_loss(output, target)

    def step(self, net, batch):
        output = net(batch[0])
        return self.loss(output, batch[1]), output

    def metrics(self):
        return MetricCollection({"error": MeanSquaredError()})


class AtStep5(Callback):
    """Acts in one process, after its fifth step."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_train_batch_end(self, batch, logs):
        if self.trainer.step == 5 and os.environ["RANK"] == "1":
            if self.what == "preempted":
                os.kill(os.getpid(), signal.SIGTERM)
            if self.what == "fails":
                raise LookupError("no such thing")


def generator():
    torch.manual_seed(0)
    net = zoo.create("resnet_generator", width=0.1)
    schedule = {"kind": "layerwise", "start": "1it", "interval": "1it", "refresh": "1it"}
    inputs = {"types": ["Conv2d", "ConvTranspose2d"], "at": "input", "skip": [0]}
    return qprune.swap(
        net,
        torch.zeros(1, 3, 32, 32),
        prune=[{"sites": [inputs], "sparsity": 0.5, "couple": True, "schedule": schedule}],
    )


if __name__ == "__main__":
    path, runs, what = sys.argv[1:]
    NAMED["streets"] = evolve(FEW_STREETS, sizes={"train": 600, "val": 10, "test": 10})
    spec = read_spec(Path(path))
    images = load_data(spec.data)
    data = {"train": images.train, "val": images.val, "test": images.test}
    own = {"model": generator(), "data": data, "task": Regression(), "callbacks": [AtStep5(what)]}
    try:
        history = qprune.fit(spec, runs=runs, verbose=0, device="cpu", resume=what == "resumed", **own)
    except qprune.QpruneError as error:
        sys.exit(f"told: {error}")
    if history.interrupted:
        sys.exit(f"preempted: {history.preempted}")
