"""How well the latency of exported networks is known from a table of their layers' shapes.

For mobilenetv2 at half width, resnet20 and a quarter of U-Net, at several uniform ratios with random masks that agree
where their channels meet, in float and in W8A8: what the file takes in ONNX Runtime, and what was estimated

- `layers`: from the table alone;
- `dense`: after the dense network had been measured, too;
- `both`: after the dense one and that with three quarters of the channels dropped had been.

    python benchmarks/search_latency.py [--networks resnet20] [--table FILE.json] [--threads 1]
"""

import argparse
from pathlib import Path

import torch
from networks import as_if_trained, drop
from torch import Tensor, nn

import qprune
from qprune import zoo
from qprune.budget import Latency, LatencyTable, find_groups
from qprune.costs.layer_cost import layer_costs
from qprune.flow import trace
from qprune.tables import table

NETWORKS = {  # options, size of images
    "mobilenetv2": ({"width": 0.5}, (3, 32, 32)),
    "resnet20": ({"shortcut": "B"}, (3, 32, 32)),
    "unet": ({"width": 0.25}, (3, 128, 160)),
}
RATIOS = (0.0, 0.5, 0.75)
ANCHORS = (0.0, 0.75)
HEADER = ("network", "numbers", "dropped", "measured", "layers", "dense", "both")
WEIGHTED = {"Conv2d", "ConvTranspose2d", "Linear"}


def narrowed(dense: nn.Module, image: Tensor, ratio: float, quantized: bool) -> nn.Module:
    """The network with a share of the channels of every group dropped, and with 8 bits if that is wanted."""
    pruned = [
        {"sites": [{"paths": list(group.members), "at": "output"}], "sparsity": ratio, "couple": group.coupled,
         "schedule": {"kind": "one-shot", "at": 0}}
        for group in find_groups(dense, image) if group.members
    ]  # fmt: skip
    types = sorted({type(module).__name__ for module in dense.modules()} & WEIGHTED)
    weights = {"sites": [{"types": types, "at": "weight"}], "bits": 8, "per": "channel", "start": 0}
    net = qprune.swap(dense, image, prune=pruned, quantize=[weights] if quantized else [], complete=quantized)
    drop(net, ratio)
    return qprune.calibrate(net, [torch.randn(4, *image.shape[1:])]) if quantized else net


def layers_of(net: nn.Module, image: Tensor) -> dict[str, tuple[float, float]]:
    """Which channels of each layer are kept, by the ledger."""
    rows = layer_costs(net, trace(net, image))
    return {row.path: (row.channels_in_kept or 0, row.channels_out_kept or 0) for row in rows}


def lines_of(name: str, found: LatencyTable) -> list[tuple[str, ...]]:
    """A line for each kind of numbers and each ratio."""
    options, size = NETWORKS[name]
    torch.manual_seed(0)
    dense, image = as_if_trained(zoo.create(name, **options)), torch.randn(1, *size)
    lines = []
    for quantized in (False, True):
        nets = {ratio: narrowed(dense, image, ratio, quantized) for ratio in RATIOS}
        latency = Latency(nets[0.0], image, found)
        latency.prepare(least=1 / 4, verbose=2)
        kept = {ratio: layers_of(net, image) for ratio, net in nets.items()}
        measured = {ratio: latency.measure(net) for ratio, net in nets.items()}
        estimates = [{ratio: latency.seconds(each) for ratio, each in kept.items()}]
        for ratio in ANCHORS:
            latency.learn(kept[ratio], measured[ratio])
            estimates.append({other: latency.seconds(each) for other, each in kept.items()})
        for ratio in RATIOS:
            told = [f"{1000 * each[ratio]:.3f} ({each[ratio] / measured[ratio]:.2f})" for each in estimates]
            numbers = "W8A8" if quantized else "float"
            lines.append((name, numbers, f"{100 * ratio:.0f} %", f"{1000 * measured[ratio]:.3f} ms", *told))
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NAME")
    parser.add_argument("--table", type=Path, help="a file that keeps what is measured of layers; default: none")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    found = LatencyTable(options.table, options.threads)
    lines = []
    for name in options.networks:
        lines += lines_of(name, found)
        print(table(HEADER, lines, right="lll" + "r" * 4), flush=True)


if __name__ == "__main__":
    main()
