"""The latency of an exported network, from a table of what layers of its shapes take on this machine."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from attrs import frozen
from torch import nn

from qprune.budget.kept import Kept, Setting
from qprune.budget.layer_shapes import Counts, LayerShape, Numbers, shape_of
from qprune.budget.layer_times import Overhead, measure_overhead, time_layers, time_network
from qprune.budget.showing import Shown
from qprune.costs.bits import FLOAT, arriving_bits, slot_bits, stored_bits
from qprune.exporting.packages import import_onnx, import_runtime
from qprune.flow import Flow, trace
from qprune.processor import processor_name
from qprune.shrinking.weights import WEIGHTED, input_count, output_count

BITS = 8  # of integer kernels: fewer bits take as long
# Layers in one file. Between runs of one of them the others take the caches, as in a whole network: mobilenetv2 was
# taken for 28 % slower than it is with 64 of them, and for 17 % faster with 8.
PART = 24
LEAST = 0.1  # of the channels of a group are kept
KINDS = ("outputs", "seconds")
# what is not computing: name of a part of `Overhead` -> where it stands in the table
OVERHEAD: dict[str, Setting] = {
    "run": ("one run", "seconds", 0),
    "real": ("one node of real numbers in a profile", "seconds", 0),
    "integer": ("one node of integers in a profile", "seconds", 0),
}
POINT = 0.02  # seconds that writing a layer takes, about
FILE = 1.0  # and running a file of several


class LatencyTable:
    """Seconds that layers take in ONNX Runtime on this machine, by shape and channels.

    Args:
        path: a JSON file to which each measurement is added as it is made, and from which those that are there are
            taken. It may hold those of several machines: only what was measured on the same processor, by the same
            version of the runtime, on as many threads, is used. None keeps them in memory alone.
        threads: on how many threads files are to run.

    Raises:
        ExportError: if the packages that export needs are missing.
        CheckpointError: if the file holds something else.
        ValueError: for less than one thread.

    Example:
        >>> shape = LayerShape("Linear", size=())
        >>> table = LatencyTable(None)
        >>> table.measure({shape: [(8, 16), (8, 24), (16, 16), (16, 24)]}, verbose=0)
        >>> table.seconds(shape, 8, 16) <= table.seconds(shape, 8, 20) + 1e-3
        True
    """

    def __init__(self, path: Path | None, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"threads must be 1 or more; received {threads}.")
        import_onnx()
        self.threads = threads
        self.kept = Kept(path, machine(threads), KINDS)

    def missing(self, points: Mapping[LayerShape, Iterable[Counts]]) -> dict[LayerShape, list[Counts]]:
        """Which of these points have not been measured."""
        left = {shape: [each for each in counts if _setting(shape, each) not in self.kept]
                for shape, counts in points.items()}  # fmt: skip
        return {shape: counts for shape, counts in left.items() if counts}

    def measure(
        self,
        points: Mapping[LayerShape, Iterable[Counts]],
        *,
        verbose: str | int = "auto",
        out: TextIO | None = None,
    ) -> None:
        """Measure those of these points, on the grids of their shapes, that have not been; see `Shown`."""
        missing = self.missing(points)
        if not missing:
            return
        shown = Shown(verbose, out or sys.stderr)
        count = sum(map(len, missing.values()))
        what = f"Latency of {count} layers in ONNX Runtime"
        shown.cost(what, POINT * count + FILE * sum(len(_in_parts(each)) for each in missing.values()))
        with _one_thread(), shown.bar(count) as bar:
            overhead = self.overhead
            for shape, counts in missing.items():
                bar.set_description_str(f"{shape.type} {' x '.join(map(str, shape.size))}", refresh=False)
                for some in _in_parts(counts):
                    found = time_layers(shape, some, overhead, self.threads)
                    self.kept.update({_setting(shape, each): seconds for each, seconds in found.items()})
                    bar.update(len(some))

    @property
    def overhead(self) -> Overhead:
        """What is not computing; measured where it has not been."""
        if any(setting not in self.kept for setting in OVERHEAD.values()):
            found = measure_overhead(self.threads)
            self.kept.update({setting: getattr(found, name) for name, setting in OVERHEAD.items()})
        return Overhead(**{name: self.kept[setting] for name, setting in OVERHEAD.items()})

    def seconds(self, shape: LayerShape, inputs: float, outputs: float) -> float:
        """What a layer takes: interpolated between the points of the grid around it, exact at them.

        A KeyError says that it has not been measured. Outputs of a depthwise layer follow from its inputs.
        """
        rows, columns = shape.corners(inputs, outputs)
        corners = [[self.kept[_setting(shape, shape.complete(row, column))] for column in columns] for row in rows]
        along = [float(np.interp(outputs, columns, each)) for each in corners]
        return float(np.interp(inputs, rows, along))


def machine(threads: int) -> str:
    """All that measured times depend on besides the layer, in words."""
    several = "" if threads == 1 else "s"
    return f"{processor_name()}, onnxruntime {import_runtime().__version__}, {threads} thread{several}"


def _setting(shape: LayerShape, counts: Counts) -> Setting:
    return f"{counts[0]} channels into {shape}", "outputs", counts[1]


def _in_parts(counts: Sequence[Counts]) -> list[Sequence[Counts]]:
    return [counts[start : start + PART] for start in range(0, len(counts), PART)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread for a while: others of it would take the cores from the runtime."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


Layers = Mapping[str, tuple[float, float]]  # by module path: input and output channels that are kept


@frozen
class _Layer:
    shapes: tuple[LayerShape, ...]  # one for each call
    dense: Counts
    features: int  # of all calls


class Latency:
    """What the exported file of a network takes, for any number of channels of its layers.

    The layers are looked up in a table. What is beside them (sums, pooling, concatenation, resizing, quantizers where
    integers begin and end) is taken from whole networks that were measured: the difference to the sum of their layers,
    interpolated by how many features are kept. So every network that `learn` is told makes the next estimate better,
    and at such a network the estimate is what was measured.

    Args:
        net: the dense network; with active quantizers, if it is to have some. They decide which layers compute with
            integers.
        example: an input of it, a tensor or a tuple of them, of one image; its shape is what the latency is for.
        table: which is measured by `prepare`.

    Raises:
        PlanError: if the calls of the network cannot be followed.

    Example:
        >>> net, image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)), torch.zeros(1, 3, 16, 24)
        >>> latency = Latency(net, image, LatencyTable(None))
        >>> latency.prepare(verbose=0)
        >>> layers = {"0": (3, 8), "2": (8, 5)}
        >>> latency.learn(layers, seconds := latency.measure(net))
        >>> abs(latency.seconds(layers) - seconds) < 1e-9
        True
    """

    def __init__(self, net: nn.Module, example: Any, table: LatencyTable) -> None:
        self.example, self.table = example, table
        self.layers = _layers(net, trace(net, example))
        self._rests = {0.0: 0.0}  # by kept features, what is beside the layers
        self._looked_up: dict[tuple[str, float, float], float] = {}

    def prepare(self, *, least: float = LEAST, verbose: str | int = "auto", out: TextIO | None = None) -> None:
        """Measure what is missing in the table for layers that keep at least this share of their channels."""
        points: dict[LayerShape, set[Counts]] = {}
        for layer in self.layers.values():
            for shape in layer.shapes:
                points.setdefault(shape, set()).update(shape.grid(layer.dense, least))
        self.table.measure({shape: sorted(each) for shape, each in points.items()}, verbose=verbose, out=out)

    def layer(self, path: str, inputs: float, outputs: float) -> float:
        """Seconds of one layer; of all its calls, if there are several. A KeyError says that it was not measured."""
        asked = path, inputs, outputs  # a search asks a thousand times
        if asked not in self._looked_up:
            of_calls = (self.table.seconds(shape, inputs, outputs) for shape in self.layers[path].shapes)
            self._looked_up[asked] = sum(of_calls)
        return self._looked_up[asked]

    def seconds(self, kept: Layers) -> float:
        """Seconds of a whole network, of which the channels of each convolution and linear layer are given."""
        features, rests = self._features(kept), sorted(self._rests)
        return self._by_layers(kept) + float(np.interp(features, rests, [self._rests[each] for each in rests]))

    def learn(self, kept: Layers, seconds: float) -> None:
        """Take in what a whole network was measured to take."""
        self._rests[self._features(kept)] = seconds - self._by_layers(kept)

    def _by_layers(self, kept: Layers) -> float:
        layers = (self.layer(path, *(max(1.0, count) for count in kept[path])) for path in self.layers)
        return self.table.overhead.run + sum(layers)

    def _features(self, kept: Layers) -> float:
        return sum(layer.features * kept[path][1] / layer.dense[1] for path, layer in self.layers.items())

    def measure(self, net: nn.Module) -> float:
        """Seconds that the exported file of a network takes, for one image of the example's shape.

        Raises:
            ExportError: if it cannot be written.
        """
        with _one_thread():
            return time_network(net, self.example, self.table.threads)


def _layers(net: nn.Module, flow: Flow) -> dict[str, _Layer]:
    bits = list(zip(arriving_bits(flow), stored_bits(flow), strict=True))
    found = {}
    for path, module in net.named_modules():
        calls = flow.of(path) if isinstance(module, WEIGHTED) else ()
        if calls:
            of_weight = slot_bits(module, "weight") or FLOAT
            shapes = [shape_of(module, call).of(_numbers(of_weight, *bits[call.index])) for call in calls]
            features = sum(prod(call.shape) for call in calls)
            found[path] = _Layer(tuple(shapes), (input_count(module), output_count(module)), features)
    return found


def _numbers(weight: int, arriving: int, stored: int) -> Numbers:
    if max(weight, arriving) > BITS:
        return "real"
    return "integer" if stored <= BITS else "sums"
