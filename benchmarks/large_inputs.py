"""What a joint training step takes on large images, beside the dense one: its time and its memory.

torchvision's resnet50 at 224 x 224, 16 images, and the U-Net at 512 x 1024, one image; 75 % pruned, W4A4.

    python benchmarks/large_inputs.py [--net resnet50] [--list] [--run] [--rounds 3]

"Kept" are the tensors that a forward leaves behind for its backward, each storage once; "peak" is the most that the
tensors of a step hold at once, with gradients, without weights and moments, and without what an operation needs within
itself. Both are counted by a dispatch mode on the meta device, where tensors have sizes and no values, so they are the
same on every machine and cost nothing. With ``--list`` those that are kept are listed, by what made them.

With ``--run`` dense and joint steps are taken, too. "CPU time" is the median of steps in turns within one run, in
seconds of the process, which other processes disturb less than the clock; "resident" is what steps add to the resident
memory of a process of its own, as Linux counts it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from attrs import evolve
from counters import LiveBytes, Made
from steps import WORKS, Step, Way, interleaved

from qprune.tables import table

CASES = {
    "resnet50": evolve(WORKS["resnet50"], size=(3, 224, 224), batch=16),
    "unet": evolve(WORKS["unet"], size=(3, 512, 1024), batch=1),
}
WAYS = {
    "dense": Way(),
    "pruned": Way(prune=True),
    "quantized": Way(quantize=True),
    "joint": Way(prune=True, quantize=True),
    "joint, recomputed": Way(prune=True, quantize=True, recompute=True),
}
HEADER = ("network", "step", "kept", "peak", "CPU time", "resident")
TIMED = ("dense", "joint", "joint, recomputed")  # of which a step takes many seconds
SMALL = (2, 3, 64, 64)  # images by which masks and quantizers begin


def make(name: str, way: str) -> Step:
    """A step of one network, past the one with which masks and quantizers begin."""
    work = CASES[name]
    step = Step(work.make(1.0), work, WAYS[way], torch.randn(SMALL))
    step.take(2)
    step.images, step.target = torch.randn(work.batch, *work.size).to(memory_format=torch.channels_last), None
    return step


def memory(step: Step) -> tuple[int, int, Counter[Made]]:
    """Bytes that are kept for a backward, the most that a step holds at once, and what is kept."""
    step.optimizer.zero_grad()
    step.net.to("meta")
    step.images = step.images.to("meta")
    with LiveBytes() as live:
        loss = step.forward()
        kept, listed = live.now, live.listed()
        loss.backward()
    return kept, live.peak, listed


def resident(name: str, way: str) -> int:
    """Bytes that steps add to the resident memory of a process of its own."""
    command = [sys.executable, __file__, "--alone", name, way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def alone(name: str, way: str) -> int:
    """What `resident` runs in the other process."""
    step = make(name, way)
    before = _status("VmRSS")
    step.take(2)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    # not getrusage, whose maximum a process inherits from the one that started it
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def rows_of(name: str, rounds: int, listing: bool) -> list[list[str]]:
    """A line for each way of one network, as ratios to dense; times only where there are rounds."""
    found: dict[str, list[float]] = {}
    for way in WAYS:
        *sizes, kept = memory(make(name, way))
        found[way] = list(sizes)
        if listing:
            print(f"\n{name}, {way}: kept for the backward")
            for (maker, shape, dtype), size in kept.most_common(25):
                print(f"  {size / 2**20:9.1f} MB  {maker} {shape} {dtype}")
    print(f"{name}, dense: {found['dense'][0] / 2**20:,.0f} MB kept, {found['dense'][1] / 2**20:,.0f} MB at the peak")
    if rounds:
        times = interleaved({way: make(name, way) for way in TIMED}, rounds, warm=1, clock=time.process_time)
        for way in TIMED:
            found[way] += [statistics.median(times[way]), resident(name, way)]
        print(f"{name}, dense: {found['dense'][2]:.1f} s, {found['dense'][3] / 2**20:,.0f} MB resident")
    ratios = {way: [f"{mine / theirs:.2f}" for mine, theirs in zip(own, found["dense"], strict=False)]
              for way, own in found.items()}  # fmt: skip
    return [[name, way, *own, *[""] * (4 - len(own))] for way, own in ratios.items()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=sorted(CASES), action="append", help="default: both")
    parser.add_argument("--run", action="store_true", help="take the steps: minutes, and gigabytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--list", action="store_true", help="the tensors that are kept, by what made them")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(alone(*options.alone))
        return
    lines = []
    for name in options.net or sorted(CASES):
        lines += rows_of(name, options.rounds if options.run else 0, options.list)
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}, ratios to dense\n")
    print(table(HEADER, lines, right="ll" + "r" * 4))


if __name__ == "__main__":
    main()
