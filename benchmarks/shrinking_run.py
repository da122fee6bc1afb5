"""A training that becomes smaller while it goes on (train.shrink = "as-frozen"), beside the dense one, step by step.

Both trainings are made of the library's parts on random images, take turns in one process with one thread, and are
timed by the processor time that they use, so that other programs matter little. The schedule is the published one,
scaled to fewer steps: pruning is over after the same share of them. The table says which part
of the training takes how much: steps of the network in each of its states, and what is done between steps. What
that is in a longer training follows from the same numbers: the states keep their shares of the steps, and what is
done between steps happens as often as here.

With ``--data``, the spec itself is trained instead, from its first image to its last validation, beside four epochs of
the dense one.

    python benchmarks/shrinking_run.py [mobilenetv2 unet] [--steps 600]
    python benchmarks/shrinking_run.py unet --data FOLDER
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import torch
from attrs import define, field
from torch import nn

import qprune
from qprune.layers import sites
from qprune.schedules import Layerwise
from qprune.spec import read_spec
from qprune.tables import table
from qprune.training import Shrinker

# folder of the specs, images of a step, and the share of the published training that its pruning takes
RUNS = {
    "mobilenetv2": ("cifar100/mobilenetv2", (64, 3, 32, 32), "9.7%"),
    "unet": ("camvid/unet", (8, 3, 128, 160), "18.7%"),
}
DENSE, WAITING, MEASURING, CUT, LAST = (
    "dense", "before anything is measured", "measured and masked, nothing cut", "cut, others to come",
    "after the last cut",
)  # fmt: skip
BETWEEN = ("driver", "cutting")


@define
class Clock:
    """Processor seconds by what they were spent on."""

    spent: dict[str, list[float]] = field(factory=dict)

    def time(self, what: str, do: Callable[[], object]) -> object:
        """Do it, and note how long it took."""
        begun = process_time()
        found = do()
        self.spent.setdefault(what, []).append(process_time() - begun)
        return found

    def total(self, *names: str) -> float:
        """Seconds of these together."""
        return sum(sum(self.spent.get(name, ())) for name in names)


class Training:
    """A network and what trains it on one batch of random images."""

    def __init__(self, name: str, steps: int, shrinking: bool) -> None:
        folder, shape, finish = RUNS[name]
        torch.manual_seed(0)
        self.net = (
            qprune.build(f"{folder}/{'a75_layerwise' if shrinking else 'baseline'}")
            .to(memory_format=torch.channels_last)
            .train()
        )
        self.images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            made = self.net(self.images)
        self.labels = torch.randint(0, made.shape[1], (len(made), *made.shape[2:]))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)
        self.clock, self.step = Clock(), 0
        self.cuts: list[int] = []
        if shrinking:
            example = torch.zeros(2, *shape[1:])
            for site in sites(self.net):
                if site.mask is not None and site.mask.schedule is not None:
                    site.mask.schedule = Layerwise(sparsity=0.75, finish=finish)
            self.driver = qprune.ScheduleDriver(self.net, example, optimizer=self.optimizer, steps=steps)
            self.shrinker = Shrinker(self.net, self.driver, self.optimizer, example=example, steps=steps)

    def train(self) -> None:
        """Forward, backward and update."""
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.net(self.images), self.labels).backward()
        self.optimizer.step()

    def take(self, state: str) -> None:
        """One step, and what is done after it."""
        self.clock.time(state, self.train)
        self.step += 1
        if state == DENSE:
            return
        events = self.clock.time("driver", self.driver.step)
        frozen = any(event.get("frozen") for event in events)  # type: ignore[attr-defined]
        if self.clock.time("cutting", lambda: self.shrinker.step(frozen, self.images)):
            self.cuts.append(self.step)

    def state(self, first: int) -> str:
        """What the network is like, where the first mask measures from a step on."""
        if self.step < first:
            return WAITING
        if self.driver.all_frozen and not self.shrinker.excess:
            return LAST
        return CUT if self.cuts else MEASURING


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; all of them by default")
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--data", type=Path, help="the folder of the data: train the spec itself")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.names or RUNS:
        print(told_of_spec(name, args.data) if args.data else told(name, args.steps), flush=True)


def told_of_spec(name: str, data: Path) -> str:
    """Train what the specs describe, loading, validation and checkpoints included."""
    dense, small = (read_spec(f"{RUNS[name][0]}/{run}") for run in ("baseline", "a75_layerwise"))
    epochs, length = 4, int(small.train.length.removesuffix("ep"))
    clock, here = Clock(), ["data.workers=0"]  # processes that load are not counted
    with TemporaryDirectory() as runs:
        options = {"data": data, "runs": runs, "verbose": 0}
        clock.time(DENSE, lambda: qprune.fit(dense, overrides=[f"train.length={epochs}ep", *here], **options))
        clock.time(LAST, lambda: qprune.fit(small, overrides=here, **options))
    epoch, whole = clock.total(DENSE) / epochs, clock.total(LAST)
    about = f"{name}: {length} epochs with pruning take {whole:.0f} s of processor time, a dense one {epoch:.1f} s"
    return f"{about}: {whole / (length * epoch):.3f} of as many dense epochs"


def told(name: str, steps: int) -> str:
    """Train both, and say where the time went."""
    dense, small = Training(name, steps, shrinking=False), Training(name, steps, shrinking=True)
    first = min(timeline.measure[0] for timeline in small.driver.agenda.timelines.values() if timeline.refreshes)
    for _ in range(steps):
        dense.take(DENSE)
        small.take(small.state(first))
    of_dense, total = statistics.median(dense.clock.spent[DENSE]), dense.clock.total(DENSE)
    rows = [
        (state, f"{len(spent) / steps:.1%}", f"{statistics.median(spent) / of_dense:.2f}", f"{sum(spent) / total:.3f}")
        for state in (WAITING, MEASURING, CUT, LAST)
        if (spent := small.clock.spent.get(state))
    ]
    rows += [(f"{what} (between steps)", "", "", f"{small.clock.total(what) / total:.3f}") for what in BETWEEN]
    whole = small.clock.total(*small.clock.spent) / total
    ready = total_of_steps(small) / total
    rows.append(("together", "100.0%", "", f"{whole:.3f}"))
    about = f"{name}: {steps} steps, {len(small.cuts)} cuts, the last at step {max(small.cuts, default=0)}; "
    about += f"a dense step takes {1000 * of_dense:.0f} ms, cutting all in all {small.clock.total('cutting'):.1f} s; "
    about += f"steps alone {ready:.3f}"
    header = ("the training", "of the steps", "one step", "of the dense training's time")
    return f"{about}\n{table(header, rows, right='lrrr')}\n"


def total_of_steps(training: Training) -> float:
    """Seconds without what is done between steps."""
    return training.clock.total(WAITING, MEASURING, CUT, LAST)


if __name__ == "__main__":
    main()
