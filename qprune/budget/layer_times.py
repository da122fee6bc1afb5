"""How long layers take in ONNX Runtime: many sizes of one shape in one file, each by the runtime's own clock."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import nn

from qprune.budget.layer_shapes import Counts, LayerShape, Numbers
from qprune.errors import ExportError
from qprune.exporting import Node, OnnxModel, write_network
from qprune.exporting.layers import lower_layer
from qprune.exporting.lowering import Lowering
from qprune.exporting.probe import saturates
from qprune.exporting.values import Real, Value
from qprune.flow import Shape
from qprune.layers import FakeQuant, QuantConv2d, sites
from qprune.shrinking.weights import rows

# bring numbers into a layout or onto a grid: in a whole network they stand between few layers, and count as what is
# beside the layers
AROUND = ("QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput", "Identity")
RUNS = 30  # at least
MOST_RUNS = 120
SECONDS = 0.3  # what the runs of one file may take
CHAIN = (4, 28)  # layers of the files that tell what a run and a node take besides computing
SMALLEST = 1e-7  # seconds, of a layer


@frozen
class Overhead:
    """What is not computing, in seconds."""

    run: float = 0.0  # of one run of a file, besides its nodes
    # by which a node of real numbers takes longer in the runtime's profile than it does in a run without
    real: float = 0.0
    integer: float = 0.0  # likewise, of integers

    def noted(self, numbers: Numbers) -> float:
        """By which a node of such a layer takes longer in a profile."""
        return self.real if numbers == "real" else self.integer


def typical(seconds: Sequence[float]) -> float:
    """The mean of all but those that took a fifth longer than a fast one: another process had the core, or the cache.

    A fast one is the first of five, if they are sorted. One microsecond is forgiven, since the runtime's clock counts
    whole ones.
    """
    fast = sorted(seconds)[len(seconds) // 5]
    return statistics.mean(each for each in seconds if each <= 1.2 * fast + 1e-6)


def time_network(net: nn.Module, inputs: Any, threads: int) -> float:
    """Seconds of one run of the exported file of a network.

    Of one thread the processor's time is taken, which stands still while another process has the core.
    """
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    model = OnnxModel(write_network(net, given).model.SerializeToString(), threads=threads)
    return _time_model(
        model, {name: x.detach().cpu().numpy() for name, x in zip(model.inputs, given, strict=True)}, threads
    )


def _time_model(model: OnnxModel, feeds: Mapping[str, Any], threads: int) -> float:
    clock = time.thread_time if threads == 1 else time.perf_counter
    return typical(_timed(lambda: model.session.run(None, feeds), clock))


def _timed(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    run()
    seconds: list[float] = []
    ends = time.perf_counter() + SECONDS
    while len(seconds) < RUNS or (time.perf_counter() < ends and len(seconds) < MOST_RUNS):
        began = clock()
        run()
        seconds.append(clock() - began)
    return seconds


def time_layers(shape: LayerShape, counts: Sequence[Counts], overhead: Overhead, threads: int) -> dict[Counts, float]:
    """Seconds that layers of one shape take within a network, with their bias, rectifier and quantizers.

    All of them are in one file and run in turns, so that a machine that slows down slows all of them alike, and none
    finds its weights where it left them.
    """
    noted = overhead.noted(shape.numbers)
    nodes = _profiled(_side_by_side(shape, counts), threads)
    return {each: max(SMALLEST, _sum(nodes, f"layers.{place}.", noted)) for place, each in enumerate(counts)}


def _sum(nodes: Iterable[Node], path: str, noted: float) -> float:
    own = [node for node in nodes if path in node.name and node.kind not in AROUND]
    if not own:
        raise ExportError(
            "This version of ONNX Runtime does not tell which of its nodes a layer has become, so that the "
            "latency of layers cannot be measured; tried are 1.22 and later."
        )
    return sum(typical(node.seconds) - noted for node in own)


def _profiled(file: "_File", threads: int) -> tuple[Node, ...]:
    model = OnnxModel(file.content(), threads=threads, profile=True)
    _timed(lambda: model.session.run(None, file.feeds))
    return model.nodes()


class _File:
    """A file that is written layer by layer: following a network that consists of them would take most of the time."""

    def __init__(self) -> None:
        self.low = Lowering(signed=not saturates())
        self.feeds: dict[str, Any] = {}

    def input(self, name: str, shape: Shape) -> Real:
        self.low.graph.input(name, shape, self._symbols(shape))
        self.feeds[name] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return Real(name)

    def layer(self, path: str, value: Value, layer: Any, shape: Shape) -> Value:
        """What a layer makes of a value; its quantizers get the ranges of such values."""
        for site in sites(layer):
            quant: Any = site.quant
            quant.calibrate(rows(layer, layer.weight) if site.side == "weight" else torch.tensor([-4.0, 4.0]))
        return lower_layer(self.low, path, layer, (value,), [shape])

    def output(self, value: Value, shape: Shape) -> None:
        """The mean over what is behind batch and channels: what makes an output of the file loses its name to it."""
        axes = self.low.integers(range(min(2, len(shape) - 1), len(shape)), "axes")
        name = self.low.graph.node("ReduceMean", [self.low.real(value), axes], "output", keepdims=1)
        self.low.graph.output(name, (None,) * len(shape), [f"{name}.{side}" for side in range(len(shape))])

    def content(self) -> bytes:
        return bytes(self.low.graph.model().SerializeToString())

    def _symbols(self, shape: Shape) -> list[str | None]:
        return ["batch", *[None] * (len(shape) - 1)]


def _side_by_side(shape: LayerShape, counts: Sequence[Counts]) -> _File:
    """Layers that read one of several inputs each, rectified, and quantized where integers are to come out."""
    file = _File()
    given = {inputs: file.input(f"x{inputs}", shape.input(inputs)) for inputs in sorted({each[0] for each in counts})}
    after = FakeQuant(8).calibrate(torch.tensor([0.0, 4.0])) if shape.numbers == "integer" else None
    for place, (inputs, outputs) in enumerate(counts):
        path = f"layers.{place}.layer"
        value = file.layer(path, given[inputs], shape.layer((inputs, outputs)), shape.input(inputs))
        value = file.low.quantize(file.low.rectify(value, 0.0, math.inf), after, f"layers.{place}.output", rank=4)
        file.output(value, shape.input(inputs))
    return file


def measure_overhead(threads: int) -> Overhead:
    """What a run takes besides its nodes, and nodes longer in a profile, found on chains of the smallest layers."""
    run, real = _of_chains(nn.Conv2d, threads)
    return Overhead(run=run, real=real, integer=_of_chains(QuantConv2d, threads)[1])


def _of_chains(kind: type[nn.Module], threads: int) -> tuple[float, float]:
    files = [_chain(kind, length) for length in CHAIN]
    short, long = (_time_model(OnnxModel(file.content(), threads=threads), file.feeds, threads) for file in files)
    each = (long - short) / (CHAIN[1] - CHAIN[0])
    nodes = [node for node in _profiled(files[1], threads) if "layers." in node.name]
    noted = statistics.mean(typical(node.seconds) for node in nodes if node.kind not in AROUND) - each
    return max(0.0, short - CHAIN[0] * each), max(0.0, noted)


def _chain(kind: type[nn.Module], length: int) -> _File:
    file, shape = _File(), (1, 8, 2, 2)
    value: Value = file.input("x", shape)
    for place in range(length):
        value = file.layer(f"layers.{place}.layer", value, kind(8, 8, 1), shape)
    file.output(value, shape)
    return file
