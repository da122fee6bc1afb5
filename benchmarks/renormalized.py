"""What statistics of batch normalizations taken anew are worth: after the last mask or quantizer, and at the end.

A run is trained; a copy of its network is scored on the test images twice, with the running statistics and with the
mean over batches of training images, augmented as in training. Training goes on with the running ones.

    python benchmarks/renormalized.py [--chain digits --chain cifar10] [--data FOLDER] [--seeds 3] [--batches 32]
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

import qprune
from qprune.calibration import average_statistics
from qprune.data import eval_loader, load_data, train_loader
from qprune.spec import Spec, read_spec
from qprune.tasks import Classification
from qprune.training import Callback
from qprune.training.evaluation import evaluate

CHAINS: dict[str, tuple[list[str], list[str]]] = {  # what is trained, and how much shorter than its specs say
    "digits": (["digits/baseline", "digits/a75_oneshot", "digits/a75_layerwise", "digits/a75_w4a4"], []),
    "cifar10": (
        ["cifar10/baseline", "cifar10/a75_layerwise"],
        ["data.train_images=2000", "train.length=6ep", "train.validate_every=6ep"],
    ),
}


class Renormalized(Callback):
    """Scores a copy of the network at the last event of the plan, with either statistics.

    Args:
        spec: of the run.
        batches: of training images that the statistics are the mean over.
    """

    def __init__(self, spec: Spec, batches: int) -> None:
        self.splits, self.batches = load_data(spec.data, seed=spec.seed), batches
        self.scores: list[tuple[float, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """After the step in which the last mask froze or the last quantizer started."""
        if self.trainer.driver is not None and self.trainer.step == self.trainer.driver.plan.finished_by:
            self.score(self.trainer.net)

    def score(self, net: nn.Module) -> None:
        """Add the accuracies of ``net`` with running statistics and with those taken anew."""
        net = copy.deepcopy(net).eval()
        running = self._accuracy(net)
        with torch.random.fork_rng(devices=[]):
            loader = train_loader(self.splits.train, batch=64, seed=1)
            average_statistics(net, self._channels_last(loader), self.batches)
        self.scores.append((running, self._accuracy(net)))

    def _accuracy(self, net: nn.Module) -> float:
        with torch.random.fork_rng(devices=[]):
            size = len(self.splits.test)
            loader = eval_loader(Subset(self.splits.test, range(0, size, max(1, size // 2000))), batch=250)
            return 100 * evaluate(net, Classification(classes=10), loader)["accuracy"]

    @staticmethod
    def _channels_last(loader: Iterable[Any]) -> Iterable[Any]:
        return ((images.to(memory_format=torch.channels_last), labels) for images, labels in loader)


def measured(name: str, root: Path, data: str | None, seed: int, batches: int) -> list[tuple[str, float, float]]:
    """Train one chain; for each of its runs the accuracies after the last event and at the end."""
    rows = []
    specs, shorter = CHAINS[name]
    for each in specs:
        spec = read_spec(each, [*shorter, f"seed={seed}", "train.shrink=never"])
        if spec.data.name != "digits":
            spec = read_spec(spec, [f"data.root={data}"])
        watch = Renormalized(spec, batches)
        history = qprune.fit(spec, runs=root / str(seed), callbacks=[watch], verbose=0, device="cpu", overwrite=True)
        watch.score(qprune.load(history.run))
        moments = ["last event", "end"] if len(watch.scores) == 2 else ["end"]
        rows += [(f"{each}, {moment}", *scores) for moment, scores in zip(moments, watch.scores, strict=True)]
        print(f"seed {seed}", *rows[-len(moments) :], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print a table: the mean over the seeds, and each of the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chain", action="append", choices=CHAINS)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for chain in options.chain or ["digits"]:
        found: dict[str, list[tuple[float, float]]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(options.seeds):
                for row, running, anew in measured(chain, Path(folder), options.data, seed, options.batches):
                    found.setdefault(row, []).append((running, anew))
        print("| run, moment | running | taken anew | differences |\n| --- | --- | --- | --- |")
        for row, scores in found.items():
            running, anew = (mean(column) for column in zip(*scores, strict=True))
            differences = ", ".join(f"{after - before:+.2f}" for before, after in scores)
            print(f"| {row} | {running:.2f} % | {anew:.2f} % | {differences} |", flush=True)


if __name__ == "__main__":
    main()
