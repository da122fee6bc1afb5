"""Share of a training step that goes to driver, callbacks and bookkeeping, with the callbacks of `fit`.

Variants take turns within one run, so that a drifting machine slows all of them alike; every part is
timed within the same step as the whole of it, and medians over the steps are given. Loading of data, validation and
checkpoints are not part of a step.

    python benchmarks/step_overhead.py [--net digits --net mobilenetv2] [--rounds 30]
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from qprune.spec import read_spec
from qprune.training import (
    CSVLogger,
    ModelCheckpoint,
    Progress,
    Provided,
    TensorBoard,
    TerminateOnNaN,
    Trainer,
    prepare,
)

NEVER = 1_000_000
PARTS = ("driver", "callbacks", "meter", "rest")
TABLES: dict[str, dict[str, Any]] = {
    "digits": {"model": read_spec("digits/baseline").to_dict()["model"], "data": {"name": "digits"}},
    "mobilenetv2": {"model": {"arch": "mobilenetv2", "width": 0.5}, "data": {"name": "cifar100"}},
}
SHAPES = {"digits": (1, 8, 8), "mobilenetv2": (3, 32, 32)}
CLASSES = {"digits": 10, "mobilenetv2": 100}
SITES = {
    "digits": [{"types": ["ReLU"], "at": "output"}],
    "mobilenetv2": [
        {"types": ["ReLU6"], "at": "output"},
        {"types": ["BatchNorm2d"], "paths": ["*.post_residual.*"], "at": "output"},
    ],
}


def rules(name: str, at: int, quantize: bool) -> dict[str, Any]:
    """Masks that are chosen at step ``at``, and measure until then; 4-bit quantizers that start there."""
    schedule = {"kind": "one-shot", "at": at, "measure": at}
    tables: dict[str, Any] = {"prune": [{"sites": SITES[name], "sparsity": 0.5, "schedule": schedule}]}
    if quantize:
        start = {"bits": 4, "schedule": {"kind": "quantize-from", "start": at, "measure": at}}
        weights = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "per": "channel"}
        tables["quantize"] = [weights | start, {"sites": SITES[name]} | start]
    return tables


VARIANTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "dense": lambda name: {},
    "masks measure": lambda name: rules(name, NEVER, quantize=False),
    "masks frozen": lambda name: rules(name, 1, quantize=False),
    "masks and quantizers measure": lambda name: rules(name, NEVER, quantize=True),
    "frozen and quantized": lambda name: rules(name, 1, quantize=True),
}


def make_trainer(name: str, tables: dict[str, Any], batch: int, folder: Path) -> Trainer:
    """A trainer as `fit` makes it, on random images, with the callbacks of `fit`."""
    optimizer = {"name": "sgd", "lr": 0.01, "momentum": 0.9}
    train = {"length": f"{NEVER}it", "batch": batch, "optimizer": optimizer, "validate_every": f"{NEVER}it"}
    images, labels = torch.randn(batch, *SHAPES[name]), torch.arange(batch) % CLASSES[name]
    data: Any = torch.utils.data.TensorDataset(images, labels)
    data.classes = [str(label) for label in range(CLASSES[name])]  # more than a small batch has
    spec = read_spec(TABLES[name] | {"train": train} | tables)
    trainer = prepare(spec, Provided.of(data={"train": data}), device="cpu").trainer
    folder.mkdir(parents=True)
    built_in = [TerminateOnNaN(), CSVLogger(folder / "history.csv"), TensorBoard(folder), Progress(0)]
    trainer.use([*built_in, ModelCheckpoint(folder)])
    return trainer


class Stepper:
    """Steps of one trainer, with the seconds that their parts take."""

    def __init__(self, trainer: Trainer, batch: Any) -> None:
        self.trainer, self.batch = trainer, batch
        self.spent = dict.fromkeys((*PARTS, "network"), 0.0)
        trainer._begin()
        driver, update, meter = trainer.driver, trainer.update, trainer.meter
        assert driver is not None
        for part, owner, method in (
            ("driver", driver, "step"),
            ("meter", meter, "update"),
            ("network", update, "backward"),
            ("network", update, "apply"),
        ):
            setattr(owner, method, self._timed(part, getattr(owner, method)))
        call = trainer.callbacks._call
        trainer.callbacks._call = self._timed("callbacks", call)  # type: ignore[method-assign]

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.spent[part] += perf_counter() - began

        return timed

    def step(self) -> dict[str, float]:
        """Seconds of one step as a whole and of its parts."""
        self.spent = dict.fromkeys(self.spent, 0.0)
        began = perf_counter()
        self.trainer._train_step(self.batch)
        whole = perf_counter() - began
        spent = self.spent
        spent["network"] -= spent["meter"]  # which is told of each batch within it
        spent["rest"] = whole - sum(value for part, value in spent.items() if part != "rest")
        return spent | {"whole": whole}


def interleaved(steppers: dict[str, Stepper], rounds: int) -> dict[str, list[dict[str, float]]]:
    """The steps of every variant, in turns; the first rounds, in which masks and quantizers begin, are not counted.

    Nor is the first step of a turn, which finds the caches as another network left them.
    """
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in steppers}
    for turn in range(rounds + 2):
        for name, stepper in steppers.items():
            stepper.step()
            spent = [stepper.step(), stepper.step()]
            if turn >= 2:
                steps[name] += spent
    return steps


def report(steps: dict[str, list[dict[str, float]]]) -> None:
    """Print a line for each variant: milliseconds of a step, and the share of each part in it."""
    print(f"  {'':<30}{'step':>9}" + "".join(f"{part:>11}" for part in PARTS) + f"{'driver + callbacks':>20}")
    for name, rows in steps.items():
        shares = {part: statistics.median(100 * row[part] / row["whole"] for row in rows) for part in PARTS}
        both = statistics.median(100 * (row["driver"] + row["callbacks"]) / row["whole"] for row in rows)
        whole = statistics.median(1000 * row["whole"] for row in rows)
        print(f"  {name:<30}{whole:6.1f} ms" + "".join(f"{shares[part]:9.2f} %" for part in PARTS) + f"{both:18.2f} %")


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=sorted(TABLES), action="append", help="default: both")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    for name in options.net or sorted(TABLES):
        torch.manual_seed(0)
        batch = torch.randn(options.batch, *SHAPES[name]), torch.arange(options.batch) % CLASSES[name]
        with tempfile.TemporaryDirectory() as folder:
            trainers = {
                v: make_trainer(name, make(name), options.batch, Path(folder) / v) for v, make in VARIANTS.items()
            }
            steps = interleaved({v: Stepper(trainer, batch) for v, trainer in trainers.items()}, options.rounds)
            for trainer in trainers.values():
                with trainer.callbacks.closing():
                    pass
        size = f"{options.batch} images of {'x'.join(map(str, SHAPES[name]))}"
        print(f"\n{name}, {size}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
              f"medians of {2 * options.rounds} steps")  # fmt: skip
        report(steps)


if __name__ == "__main__":
    main()
