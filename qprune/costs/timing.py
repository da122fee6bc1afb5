"""Times forward passes of several networks in turns."""

import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qprune.tables import table

SECONDS = 5.0  # what measuring may take where no number of rounds is given
FEWEST, MOST = 3, 99


def forward_times(nets: Mapping[str, nn.Module], x: Tensor, rounds: int | None = None) -> dict[str, float]:
    """Median seconds of one forward pass of each network in eval mode, without gradients.

    The networks take turns, one forward each per round, so that a machine that slows down slows all of them alike. One
    forward of each comes before and is not counted.

    Args:
        nets: by name; on the device and in the memory layout of ``x``. They are left in eval mode.
        x: the input of all of them.
        rounds: how many; by default as many as take about 5 seconds, but at least 3 and at most 99.

    Raises:
        ValueError: for less than one round.

    Example:
        >>> forward_times({"one": nn.Conv2d(3, 8, 3), "two": nn.Conv2d(3, 4, 3)}, torch.zeros(2, 3, 5, 7)).keys()
        dict_keys(['one', 'two'])
    """
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds must be 1 or more; received {rounds}")
    times: dict[str, list[float]] = {name: [] for name in nets}
    with torch.inference_mode():
        for net in nets.values():
            net.eval()(x)
        while len(next(iter(times.values()), ())) < (rounds or _affordable(times)):
            for name, net in nets.items():
                times[name].append(_seconds(net, x))
    return {name: statistics.median(each) for name, each in times.items()}


def _seconds(net: nn.Module, x: Tensor) -> float:
    began = time.perf_counter()
    net(x)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began


def _affordable(times: Mapping[str, list[float]]) -> int:
    done = len(next(iter(times.values()), ()))
    spent = sum(map(sum, times.values()))
    return FEWEST if done < FEWEST else min(MOST, int(SECONDS * done / spent))


def time_table(times: Mapping[int, Mapping[str, float]]) -> str:
    """What `forward_times` found, by batch size, as a printed table: a line per network.

    For each batch it has the time and its ratio to the first network's.

    Example:
        >>> print(time_table({1: {"dense": 0.002, "shrunk": 0.0005}, 8: {"dense": 0.1, "shrunk": 0.04}}))
        network   batch 1  of dense    batch 8  of dense
        ------------------------------------------------
        dense    2.000 ms      1.00  100.00 ms      1.00
        shrunk   0.500 ms      0.25   40.00 ms      0.40
    """
    names = list(next(iter(times.values()), ()))
    header = ["network", *(cell for batch in times for cell in (f"batch {batch}", f"of {names[0]}"))]
    rows = [[name, *(cell for each in times.values() for cell in _cells(each, name, names[0]))] for name in names]
    return table(header, rows, right="l" + "r" * (len(header) - 1))


def _cells(times: Mapping[str, float], name: str, first: str) -> tuple[str, str]:
    milliseconds = 1000 * times[name]
    digits = 3 if milliseconds < 10 else 2 if milliseconds < 1000 else 0
    return f"{milliseconds:.{digits}f} ms", f"{times[name] / times[first]:.2f}"
