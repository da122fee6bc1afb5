"""Operations that a training step launches on a GPU, counted without one: forward, backward, optimizer and driver.

A dispatch mode counts the operations of a step on the CPU, in which the sites are told to do what they do on a GPU.
Views and allocations launch nothing; an operation on many tensors at once is one. What autograd keeps for the backward
is added up too, by one operation per site as on a GPU, and by several as on the CPU. Sparsity 75 %, W4A4, the
published sites.

    python benchmarks/launches.py [--net mobilenetv2] [--each]
"""

import argparse
from collections import Counter
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from counters import Launches
from steps import WORKS
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import qprune
from qprune.layers import ReadyWeights

NEVER = 1_000_000
NETS = ("mobilenetv2", "densenet121")
VARIANTS = {  # whether it prunes, and whether it quantizes
    "dense": (False, False),
    "pruned 75 %": (True, False),
    "quantized W4A4": (False, True),
    "pruned 75 % and W4A4": (True, True),
}


def rules(name: str, prunes: bool, quantizes: bool, at: int) -> dict[str, Any]:
    """Masks that are chosen at step ``at`` and 4-bit quantizers that start there; both measure until then."""
    schedule = {"kind": "one-shot", "at": at, "measure": at}
    start = {"bits": 4, "schedule": {"kind": "quantize-from", "start": at, "measure": at}}
    work = WORKS[name]
    weights = {"sites": [{"types": list(work.weights), "at": "weight"}], "per": "channel"}
    return {
        "prune": [{"sites": list(work.masks), "sparsity": 0.75, "schedule": schedule}] if prunes else [],
        "quantize": [weights | start, {"sites": list(work.acts)} | start] if quantizes else [],
    }


def as_on_gpu() -> Any:
    """Within it, sites take every tensor for one on a GPU; their operation computes by plain functions then."""
    return patch("qprune.layers.fused.on_gpu", lambda x: isinstance(x, Tensor))


def make(name: str, prunes: bool, quantizes: bool, at: int, images: Tensor, width: float) -> nn.Module:
    """The network, compressed unless it is to be dense."""
    net = WORKS[name].make(width)
    if prunes or quantizes:
        net = qprune.swap(net, images, **rules(name, prunes, quantizes, at))
    return net.train()


def count(name: str, prunes: bool, quantizes: bool, at: int, *, at_once: bool = True) -> Counter[str]:
    """Launches of the third step, by operation: the first ones are not like those that follow.

    Its weights are made ready at once, as by the `Trainer`, or each by its layer.
    """
    images, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 100, (2,))
    net = make(name, prunes, quantizes, at, images, width=0.1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, foreach=True)  # as on a GPU
    driver = qprune.ScheduleDriver(net, images, optimizer=optimizer) if prunes or quantizes else None
    weights = ReadyWeights(net if at_once else nn.Identity())
    for _ in range(3):
        with Launches() as launches, as_on_gpu():
            optimizer.zero_grad()
            with weights.ready():
                loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            if driver is not None:
                driver.step()
    return launches.counts


def remembered(name: str, prunes: bool, quantizes: bool, sites: Any) -> int:
    """Bytes that autograd keeps for the backward of a step with frozen masks and active quantizers."""
    images = torch.randn(16, 3, 32, 32)
    net = make(name, prunes, quantizes, 1, images, width=1.0)
    if prunes or quantizes:
        driver = qprune.ScheduleDriver(net, images)
        net(images).sum().backward()
        driver.step()
    kept: dict[int, tuple[int, Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with sites, saved_tensors_hooks(note, lambda tensor: tensor):
        net(images)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    return sum(size for at, (size, _) in kept.items() if at not in own)


def main() -> None:
    """Print one table per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=NETS, action="append", help="default: both")
    parser.add_argument("--each", action="store_true", help="list every operation")
    options = parser.parse_args()
    for name in options.net or NETS:
        print(f"\n{name}, torch {torch.__version__}")
        dense = count(name, False, False, 1).total()
        print(f"  {'':<24}{'measuring':>18}{'masked and quantized':>24}")
        variants = [(variant, *does, True) for variant, does in VARIANTS.items()]
        for variant, prunes, quantizes, at_once in [*variants, ("  each weight alone", True, True, False)]:
            both = [count(name, prunes, quantizes, at, at_once=at_once) for at in (NEVER, 1)]
            line = [f"{each.total():>10,}  ({each.total() / dense:4.2f})" for each in both]
            print(f"  {variant:<24}{line[0]:>18}{line[1]:>24}")
            if options.each:
                for operation, counted in both[1].most_common():
                    print(f"      {operation:<32}{both[0][operation]:>8}{counted:>24}")
        base = remembered(name, False, False, nullcontext())
        one, several = (remembered(name, True, True, sites) / base for sites in (as_on_gpu(), nullcontext()))
        print(f"  kept for the backward, to the dense step's: {one:.2f}, by several operations {several:.2f}")


if __name__ == "__main__":
    main()
