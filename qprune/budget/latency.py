"""The latency of an exported network, from a table of what layers of its shapes take on this machine."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from qprune.export.comparing import processor
from qprune.export.packages import import_onnx, import_runtime
from qprune.flow import Flow, trace
from qprune.report import LayerCost
from qprune.report.bits import stored_bits
from qprune.shrink.weights import WEIGHTED, input_count, output_count

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
        """Measure which of these points have not been measured.

        Args:
            points: for each shape input and output channels, on its grid.
            verbose: 0 is silent; 2 tells the cost; 1 shows a live line, too; ``"auto"`` does where ``out`` is a
                terminal.
            out: where to; standard error by default.
        """
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

        Args:
            shape: its shape.
            inputs: kept input channels, at least 1.
            outputs: kept output channels; of a depthwise layer they follow from the inputs.

        Raises:
            KeyError: if it has not been measured.
        """
        rows, columns = shape.corners(inputs, outputs)
        corners = [[self.kept[_setting(shape, shape.complete(row, column))] for column in columns] for row in rows]
        along = [float(np.interp(outputs, columns, each)) for each in corners]
        return float(np.interp(inputs, rows, along))


def machine(threads: int) -> str:
    """All that measured times depend on besides the layer, in words.

    Raises:
        ExportError: if the runtime is missing.

    Example:
        >>> machine(threads=1).endswith(", 1 thread")
        True
    """
    several = "" if threads == 1 else "s"
    return f"{processor()}, onnxruntime {import_runtime().__version__}, {threads} thread{several}"


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


@frozen
class _Layer:
    shapes: tuple[LayerShape, ...]  # one for each call
    dense: Counts
    sums: bool  # whether its outputs are real numbers even where it reads integers

    def of(self, integer: bool) -> list[LayerShape]:
        numbers: Numbers = "real" if not integer else "sums" if self.sums else "integer"
        return [shape.of(numbers) for shape in self.shapes]


@frozen
class _Whole:
    features: float
    integer: bool
    rest: float


class Latency:
    """What the exported file of a network takes, for any number of channels and bits of its layers.

    The layers are looked up in a table. What is beside them (sums, pooling, concatenation, resizing, quantizers where
    integers begin and end) is taken from whole networks that were measured: the difference to the sum of their layers,
    interpolated by how many features are kept. So every network that `learn` is told makes the next estimate better,
    and at such a network the estimate is what was measured.

    Args:
        net: the dense network, or one with quantizers that are active: then these tell which layers write real numbers.
            Without any it is taken that all of a quantized network is, but for its outputs (``complete = true``).
        example: an input of it, a tensor or a tuple of them, of one image; its shape is what the latency is for.
        table: which is measured by `prepare`.

    Raises:
        PlanError: if the calls of the network cannot be followed.

    Example:
        >>> net, image = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)), torch.zeros(1, 3, 16, 24)
        >>> latency = Latency(net, image, LatencyTable(None))
        >>> latency.prepare(verbose=0)
        >>> rows = layer_costs(net, trace(net, image))
        >>> latency.learn(rows, seconds := latency.measure(net))
        >>> abs(latency.seconds(rows) - seconds) < 1e-9
        True
    """

    def __init__(self, net: nn.Module, example: Any, table: LatencyTable) -> None:
        self.example, self.table = example, table
        flow = trace(net, example)
        self.layers = _layers(net, flow)
        self.wholes: list[_Whole] = []

    def prepare(
        self,
        *,
        integer: Sequence[bool] = (False,),
        least: float = LEAST,
        verbose: str | int = "auto",
        out: TextIO | None = None,
    ) -> None:
        """Measure what is missing in the table for these layers.

        Args:
            integer: whether layers compute with real numbers, with integers, or, ``(False, True)``, with either.
            least: the smallest share of its channels that a layer keeps; of fewer there is no estimate.
            verbose: as for `LatencyTable.measure`.
            out: as there.

        Raises:
            ExportError: if the runtime refuses what is to be measured.
        """
        points: dict[LayerShape, set[Counts]] = {}
        for layer in self.layers.values():
            for shape in (shape for kind in integer for shape in layer.of(kind)):
                points.setdefault(shape, set()).update(shape.grid(layer.dense, least))
        self.table.measure({shape: sorted(each) for shape, each in points.items()}, verbose=verbose, out=out)

    def layer(self, path: str, inputs: float, outputs: float, *, integer: bool) -> float:
        """Seconds of one layer; of all its calls, if there are several.

        Args:
            path: module path of a convolution or linear layer.
            inputs: kept input channels.
            outputs: kept output channels.
            integer: whether weights and values have at most 8 bits.

        Raises:
            KeyError: for another path, and where `prepare` has not measured.
        """
        return sum(self.table.seconds(shape, inputs, outputs) for shape in self.layers[path].of(integer))

    def seconds(self, rows: Iterable[LayerCost]) -> float:
        """Seconds of a whole network.

        Args:
            rows: its ledger; of each row path, kept channels, bits and dense features are read.
        """
        rows = [row for row in rows if row.path in self.layers]
        return self._by_layers(rows) + self._rest(_features(rows), _mostly_integer(rows))

    def _by_layers(self, rows: Iterable[LayerCost]) -> float:
        return self.table.overhead.run + sum(
            self.layer(row.path, row.channels_in_kept or 1, row.channels_out_kept or 1, integer=_is_integer(row))
            for row in rows
        )

    def _rest(self, features: float, integer: bool) -> float:
        known = {each.features: each.rest for each in self.wholes if each.integer == integer}
        known.setdefault(0.0, 0.0)
        places = sorted(known)
        return float(np.interp(features, places, [known[place] for place in places]))

    def learn(self, rows: Iterable[LayerCost], seconds: float) -> None:
        """Take in what a whole network was measured to take.

        Args:
            rows: its ledger.
            seconds: what `measure` found.
        """
        rows = [row for row in rows if row.path in self.layers]
        whole = _Whole(_features(rows), _mostly_integer(rows), seconds - self._by_layers(rows))
        self.wholes = [each for each in self.wholes if (each.features, each.integer) != (whole.features, whole.integer)]
        self.wholes.append(whole)

    def measure(self, net: nn.Module) -> float:
        """Seconds that the exported file of a network takes, for one image of the example's shape.

        Raises:
            ExportError: if it cannot be written.
        """
        with _one_thread():
            return time_network(net, self.example, self.table.threads)


def _layers(net: nn.Module, flow: Flow) -> dict[str, _Layer]:
    stored = dict(enumerate(stored_bits(flow)))
    quantizes = any(bits <= BITS for bits in stored.values())
    last = _makers_of_outputs(flow)
    found = {}
    for path, module in net.named_modules():
        calls = flow.of(path) if isinstance(module, WEIGHTED) else ()
        if calls:
            sums = [stored[call.index] > BITS if quantizes else call.index in last for call in calls]
            dense = input_count(module), output_count(module)
            found[path] = _Layer(tuple(shape_of(module, call) for call in calls), dense, any(sums))
    return found


def _makers_of_outputs(flow: Flow) -> set[int]:
    """The calls of layers with weights whose results are the network's, perhaps reshaped or rectified."""
    makers, left = set(), list(flow.outputs)
    while left:
        index = left.pop()
        if index >= 0 and index not in makers:
            makers.add(index)
            if not isinstance(flow.calls[index].layer, WEIGHTED):
                left += flow.calls[index].inputs
    return makers


def _is_integer(row: LayerCost) -> bool:
    return (row.weight_bits or 32) <= BITS and (row.activation_bits or 32) <= BITS


def _features(rows: Iterable[LayerCost]) -> float:
    return sum(row.features * (row.channels_out_kept or 0) / (row.channels_out or 1) for row in rows)


def _mostly_integer(rows: Sequence[LayerCost]) -> bool:
    return sum(row.macs * (1 if _is_integer(row) else -1) for row in rows) > 0
