"""How long a network takes to be traced (for shrinking) and followed (for saving), and what its graph consists of.

python benchmarks/following.py [NAME ...]: networks of torchvision, which must be installed.
"""

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torchvision

from qprune.flow import trace
from qprune.graph.following import follow
from qprune.graph.operations import is_layer

NAMES = (
    "resnet18", "shufflenet_v2_x1_0", "efficientnet_b0", "mobilenet_v3_small", "convnext_tiny", "densenet121",
    "lraspp_mobilenet_v3_large",
)  # fmt: skip


def main(names: list[str]) -> None:
    """Print a line for each network."""
    warnings.filterwarnings("ignore")
    print(f"{'network':28}{'traced':>10}{'followed':>10}{'ratio':>8}  operations beside layers")
    for name in names or NAMES:
        options = {"weights_backbone": None} if "lraspp" in name else {}
        net, x = torchvision.models.get_model(name, weights=None, **options).eval(), torch.zeros(1, 3, 64, 96)
        traced = min(_seconds(partial(trace, net, x)) for _ in range(3))
        followed = min(_seconds(partial(follow, net, (x,), is_layer)) for _ in range(3))
        graph = follow(net, (x,), is_layer).graph
        kinds = sorted({node.name.rstrip("_0123456789") for node in graph.nodes if node.op == "call_function"})
        print(f"{name:28}{traced:9.2f}s{followed:9.2f}s{followed / traced:8.1f}  {', '.join(kinds)}", flush=True)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
