"""What shrinking takes out of the networks of the zoo, and the time of one forward pass before and after.

Each network has masks at its published sites for 75 % pruned activations, random ones of a fixed seed. The first table
shows its parameters and multiply-accumulates (MACs) before, by the masks and after shrinking, the largest difference of
an output as a share of the largest output, and how long shrinking took. The second shows the median time of a forward
pass in eval mode at the paper's input size, channels last: dense, masked, shrunk, and shrunk with its normalizations
folded. The four take turns within one run, so that a drifting machine slows all of them alike.

    python benchmarks/shrunk_forward.py [--networks mobilenetv2 unet] [--rounds 7]
"""

import argparse
import time

import torch
from networks import NETWORKS, dense_network, masked_network
from torch import Tensor, nn

from qprune.costs import ShrinkReport, forward_times, report_shrunk
from qprune.shrinking import shrink_with_facts
from qprune.tables import short, table

ROUNDS = {"unet": 3, "frrn_b": 3}
BATCHES = (1, 8)
COSTS = (
    "network",
    "parameters",
    "by masks",
    "left",
    "share",
    "MACs",
    "by masks",
    "left",
    "share",
    "difference",
    "shrinking",
)
TIMES = ("network", "batch", "dense", "masked", "shrunk", "folded", "masked", "shrunk", "folded")


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The largest difference of an output, as a share of the largest output."""
    outputs = one(x)
    return float((outputs - other(x)).abs().max() / outputs.abs().max())


def costs(name: str, report: ShrinkReport, off: float, seconds: float) -> list[str]:
    """A line of the first table."""
    total = report.total
    return [
        name,
        f"{total.parameters:,}",
        f"{total.parameters_kept:,}",
        f"{total.parameters_left:,}",
        f"{total.parameters_left / total.parameters:.3f}",
        *(short(count) for count in (total.macs, total.macs_kept, total.macs_left)),
        f"{total.macs_left / total.macs:.3f}",
        f"{off:.1e}",
        f"{seconds:.2f} s",
    ]


def times(name: str, nets: dict[str, nn.Module], images: Tensor, rounds: int) -> list[list[str]]:
    """The lines of the second table: milliseconds, and ratios to the dense network."""
    lines = []
    for batch in BATCHES:
        taken = forward_times(nets, images[:batch], rounds)
        ratios = [f"{seconds / taken['dense']:.3f}" for seconds in taken.values()][1:]
        lines.append([name, str(batch), *(f"{1000 * seconds:.1f} ms" for seconds in taken.values()), *ratios])
    return lines


def measure(name: str, rounds: int | None) -> tuple[list[list[str]], list[list[str]]]:
    """The lines of both tables for one network: unfolded and folded; batch 1 and 8."""
    folder, size = NETWORKS[name]
    torch.manual_seed(0)
    dense, masked = dense_network(f"{folder}/baseline"), masked_network(f"{folder}/a75_layerwise")
    nets, lines = {"dense": dense, "masked": masked}, []
    images, example = torch.randn(max(BATCHES), *size), torch.zeros(1, *size)
    for label, fold in (("shrunk", False), ("folded", True)):
        began = time.perf_counter()
        shrunk = shrink_with_facts(masked, example, fold=fold)
        seconds = time.perf_counter() - began
        off = difference(masked, shrunk.net, images[:1])
        title = f"{name}, folded" if fold else name
        lines.append(costs(title, report_shrunk(masked, shrunk, example), off, seconds))
        nets[label] = shrunk.net
    for net in nets.values():
        net.to(memory_format=torch.channels_last)
    return lines, times(name, nets, images.contiguous(memory_format=torch.channels_last), rounds or ROUNDS.get(name, 7))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME",
                        help=f"of {', '.join(NETWORKS)}; default: all")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="default: 3 for unet and frrn_b, 7 for the others")
    options = parser.parse_args()
    cost_lines, time_lines = [], []
    for name in options.networks:
        shrunk, taken = measure(name, options.rounds)
        cost_lines += shrunk
        time_lines += taken
        print(f"{name} is measured", flush=True)
    print(f"\n{table(COSTS, cost_lines, right='l' + 'r' * (len(COSTS) - 1))}")
    print(
        f"\nOne forward pass, {torch.get_num_threads()} threads, torch {torch.__version__}: medians, ratios to dense\n"
    )
    print(table(TIMES, time_lines, right="l" + "r" * (len(TIMES) - 1)))


if __name__ == "__main__":
    main()
