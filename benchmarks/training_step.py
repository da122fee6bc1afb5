"""Time of one training step on the CPU: dense, pruned, quantized, joint, against the dense step of the default layout.

The variants take turns within one run, so that a drifting machine slows all of them alike; medians are compared.
qsparse 2.0.1, if it is installed beside qprune, takes part with its own joint layers.

    python benchmarks/training_step.py [--net mobilenetv2 --batch 64] [--rounds 9] [--alone] [--width 1.0]
"""

import argparse
import copy
import statistics

import torch
from steps import WORKS, Step, Way, Work, interleaved
from torch import Tensor, nn

BATCH = {"mobilenetv2": 64, "densenet121": 32}
WAYS = {
    "dense": Way(channels_last=False),
    "dense, channels_last": Way(),
    "pruned 75 %": Way(prune=True),
    "quantized W4A4": Way(quantize=True),
    "joint 75 % + W4A4": Way(prune=True, quantize=True),
}


def qsparse_step(net: nn.Module, work: Work, images: Tensor) -> Step | None:
    """The same sites with qsparse's layers, all active; None where it is not installed."""
    try:
        from qsparse import AdaptiveQuantizer, ScalerQuantizer, convert, prune, quantize, set_qsparse_options
    except ImportError:
        return None
    set_qsparse_options(log_on_created=False)
    for rule in work.masks:
        kinds = [getattr(nn, kind) for kind in rule["types"]]
        places = {"include": [path.strip("*.") for path in rule.get("paths", ())] or None}
        mask = prune(sparsity=0.75, start=1, interval=1, repetition=1)
        net = convert(net, mask, activation_layers=kinds, log=False, **places)
        acts = quantize(bits=4, timeout=1, channelwise=-1, callback=AdaptiveQuantizer())
        net = convert(net, acts, activation_layers=kinds, log=False, **places)
    weights = quantize(bits=4, timeout=1, channelwise=0, callback=ScalerQuantizer())
    return Step(convert(net, weights, weight_layers=[nn.Conv2d], log=False), work, WAYS["dense"], images)


def variants(name: str, batch: int, width: float) -> dict[str, Step]:
    """Every variant by its printed name; the first one is the measure of the others."""
    work, images = WORKS[name], torch.randn(batch, *WORKS[name].size)
    dense = work.make(width)
    steps = {title: Step(copy.deepcopy(dense), work, way, images) for title, way in WAYS.items()}
    theirs = qsparse_step(dense, work, images)
    return steps if theirs is None else steps | {"qsparse joint": theirs}


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=sorted(BATCH), action="append", help="default: both")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", action="store_true", help="several steps per turn, as in a training by itself")
    parser.add_argument("--width", type=float, default=1.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    for name in options.net or sorted(BATCH, reverse=True):
        batch = options.batch or BATCH[name]
        turn = {"count": 3, "first": 1} if options.alone else {}
        times = interleaved(variants(name, batch, options.width), options.rounds, **turn)
        base = statistics.median(times["dense"])
        print(f"\n{name}, width {options.width}, batch {batch}, {torch.get_num_threads()} threads, "
              f"torch {torch.__version__}, median of {options.rounds}")  # fmt: skip
        for variant, seconds in times.items():
            ratios = sorted(s / d for s, d in zip(seconds, times["dense"], strict=True))
            print(f"  {variant:<22} {statistics.median(seconds):7.3f} s   {statistics.median(seconds) / base:5.2f}   "
                  f"(pairwise {ratios[0]:.2f} .. {ratios[-1]:.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
