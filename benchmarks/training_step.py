"""Time of one training step on the CPU: dense, pruned, quantized, joint, against the dense step of the default layout.

The variants take turns within one run, so that a drifting machine slows all of them alike; medians are compared.
qsparse 2.0.1, if it is installed beside qprune, takes part with its own joint layers.

    python benchmarks/training_step.py [--net mobilenetv2 --batch 64] [--rounds 9] [--alone] [--width 1.0]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import qprune
from qprune import zoo

SITES = {
    "mobilenetv2": [
        {"types": ["ReLU6"], "at": "output"},
        {"types": ["BatchNorm2d"], "paths": ["*.post_residual.*"], "at": "output"},
    ],
    "densenet121": [
        {"types": ["ReLU"], "at": "output"},
        {"types": ["BatchNorm2d"], "paths": ["*transition*"], "at": "output"},
    ],
}
QUANT_SITES = SITES | {
    "densenet121": [
        {"types": ["ReLU"], "at": "output"},
        {"types": ["AvgPool2d"], "paths": ["*transition*"], "at": "output"},
    ]
}
WEIGHTS = {"mobilenetv2": ["Conv2d"], "densenet121": ["Conv2d", "Linear"]}
BATCH = {"mobilenetv2": 64, "densenet121": 32}
Step = Callable[[], None]


def make_step(net: nn.Module, batch: int, channels_last: bool, example: torch.Tensor | None = None) -> Step:
    """One step: forward, backward, SGD with momentum; with an ``example``, the driver's step too."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(memory_format=layout).train()
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.randint(0, 100, (batch,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    driver = qprune.ScheduleDriver(net, example, optimizer=optimizer) if example is not None else None

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        if driver is not None:
            driver.step()

    return step


def compressed_step(dense: nn.Module, name: str, batch: int, *, prune: bool, quantize: bool) -> Step:
    """A step of the network at its published sites: 75 % of the channels dropped, W4A4."""
    prune_rules = [{"sites": SITES[name], "sparsity": 0.75, "schedule": {"kind": "one-shot", "at": 1}}]
    weights = {"sites": [{"types": WEIGHTS[name], "at": "weight"}], "bits": 4, "per": "channel", "start": 1}
    quant_rules = [weights, {"sites": QUANT_SITES[name], "bits": 4, "start": 1}]
    example = torch.zeros(2, 3, 32, 32)
    net = qprune.swap(dense, example, prune=prune_rules if prune else [], quantize=quant_rules if quantize else [])
    return make_step(net, batch, channels_last=True, example=example)


def qsparse_step(dense: nn.Module, name: str, batch: int) -> Step | None:
    """The same sites with qsparse's layers, all active; None where it is not installed."""
    try:
        from qsparse import AdaptiveQuantizer, ScalerQuantizer, convert, prune, quantize, set_qsparse_options
    except ImportError:
        return None
    set_qsparse_options(log_on_created=False)
    net = copy.deepcopy(dense)
    for rule in SITES[name]:
        kinds = [getattr(nn, kind) for kind in rule["types"]]
        places = {"include": [path.strip("*.") for path in rule.get("paths", ())] or None}
        mask = prune(sparsity=0.75, start=1, interval=1, repetition=1)
        net = convert(net, mask, activation_layers=kinds, log=False, **places)
        acts = quantize(bits=4, timeout=1, channelwise=-1, callback=AdaptiveQuantizer())
        net = convert(net, acts, activation_layers=kinds, log=False, **places)
    weights = quantize(bits=4, timeout=1, channelwise=0, callback=ScalerQuantizer())
    net = convert(net, weights, weight_layers=[nn.Conv2d], log=False)
    return make_step(net, batch, channels_last=False)


def variants(name: str, batch: int, width: float) -> dict[str, Step]:
    """Every variant by its printed name; the first one is the measure of the others."""
    dense = zoo.create(name, width=width)
    steps = {
        "dense": make_step(copy.deepcopy(dense), batch, channels_last=False),
        "dense, channels_last": make_step(copy.deepcopy(dense), batch, channels_last=True),
        "pruned 75 %": compressed_step(dense, name, batch, prune=True, quantize=False),
        "quantized W4A4": compressed_step(dense, name, batch, prune=False, quantize=True),
        "joint 75 % + W4A4": compressed_step(dense, name, batch, prune=True, quantize=True),
        "qsparse joint": qsparse_step(dense, name, batch),
    }
    return {name: step for name, step in steps.items() if step is not None}


def interleaved(steps: dict[str, Step], rounds: int, alone: bool) -> dict[str, list[float]]:
    """Seconds per step of every variant, in turns: one step each, or three after an untimed one.

    A step right after another network's finds caches and allocator in that one's state, which costs networks
    differently; ``alone`` shows the steady state of a training that runs by itself.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 3):  # the first rounds, in which masks and quantizers begin, are not counted
        for name, step in steps.items():
            if alone:
                step()
            began = time.perf_counter()
            for _ in range(3 if alone else 1):
                step()
            if turn >= 3:
                times[name].append((time.perf_counter() - began) / (3 if alone else 1))
    return times


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=sorted(SITES), action="append", help="default: both")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", action="store_true", help="several steps per turn, as in a training by itself")
    parser.add_argument("--width", type=float, default=1.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    for name in options.net or sorted(SITES, reverse=True):
        batch = options.batch or BATCH[name]
        times = interleaved(variants(name, batch, options.width), options.rounds, options.alone)
        base = statistics.median(times["dense"])
        print(f"\n{name}, width {options.width}, batch {batch}, {torch.get_num_threads()} threads, "
              f"torch {torch.__version__}, median of {options.rounds}")  # fmt: skip
        for variant, seconds in times.items():
            ratios = sorted(s / d for s, d in zip(seconds, times["dense"], strict=True))
            print(f"  {variant:<22} {statistics.median(seconds):7.3f} s   {statistics.median(seconds) / base:5.2f}   "
                  f"(pairwise {ratios[0]:.2f} .. {ratios[-1]:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
