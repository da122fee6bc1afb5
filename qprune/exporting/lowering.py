"""From the calls of a network to the nodes of an ONNX file: what each value is decides how the next call is written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from qprune.exporting.graph import Graph
from qprune.exporting.kernels import Kernel
from qprune.exporting.no_way import NoWayError
from qprune.exporting.values import TOP, Codes, Grid, Other, Product, Real, Size, Value, array, grid_of
from qprune.functional import along
from qprune.layers import ChannelMask, FakeQuant


@frozen
class Layer:
    """How one convolution or linear layer was written."""

    path: str  # its module path
    integer: bool  # whether it computes with integers
    reason: str = ""  # why it does not


@frozen(eq=False)
class Lowering:
    """The file while it is written, with the few ways in which all layers write to it."""

    graph: Graph = field(factory=Graph)  # nodes and constants
    # whether integer weights are int8; else uint8 around 128, with which no processor's sums saturate
    signed: bool = True
    # whether weights of up to 4 bits are held as 4-bit integers, of which runtimes make real numbers
    packed: bool = False
    # for each site with an active quantizer the tensor of its integers, and their grid
    quantized: dict[str, Codes] = field(factory=dict)
    layers: list[Layer] = field(factory=list)  # convolutions and linear layers, in the order in which they are written
    _reals: dict[str, str] = field(factory=dict)
    _made_by_layers: set[str] = field(factory=set)  # the integers that convolutions and linear layers make

    def real(self, value: Value) -> str:
        """The float tensor of a value; rectifiers that were put off are written."""
        if isinstance(value, Codes):
            return self._dequantized(value)
        if isinstance(value, Other):
            raise NoWayError(f"it reads {value.dtype}")
        name = value.name if isinstance(value, Real) else value.real()
        return self._rectified(name, value.floor, value.ceiling)

    def summand(self, value: Value) -> str:
        """The float tensor of a value that is going to be added to another one.

        The integers that a layer makes are quantized once more, as int8: OpenVINO puts a sum into the layer before
        it, and would not round between both otherwise. ONNX Runtime takes the pair out again.
        """
        if not isinstance(value, Codes) or value.name not in self._made_by_layers:
            return self.real(value)
        zero_point = self.graph.constant(np.int8(value.grid.zero_point - 2**7), "zero_point")
        grid = [self.graph.constant(value.grid.scale, "scale"), zero_point]
        again = self.graph.node("QuantizeLinear", [self.real(value), *grid], f"{value.name}.again")
        return self.graph.node("DequantizeLinear", [again, *grid], f"{again}.real")

    def of_its_dtype(self, value: Value) -> str:
        """The tensor of a value, in the dtype that the network computes with."""
        return value.name if isinstance(value, Other) else self.real(value)

    def settled(self, value: Value) -> Value:
        """The same value, with nothing put off: several layers are going to read it."""
        return value if isinstance(value, Codes) else Real(self.real(value))

    def name(self, value: Value) -> str:
        """The tensor of a value, in integers or real numbers."""
        return value.name if isinstance(value, Codes) else self.real(value)

    def _dequantized(self, codes: Codes) -> str:
        if codes.name not in self._reals:
            inputs = [codes.name, *self.grid_constants(codes.grid)]
            self._reals[codes.name] = self.graph.node("DequantizeLinear", inputs, f"{codes.name}.real")
        return self._reals[codes.name]

    def _rectified(self, name: str, floor: float, ceiling: float) -> str:
        if floor == 0 and ceiling == np.inf:
            return self.graph.node("Relu", [name], f"{name}.rectified")
        if np.isinf(floor) and np.isinf(ceiling):
            return name
        bounds = [
            self.graph.constant(np.float32(bound), "bound") if np.isfinite(bound) else "" for bound in (floor, ceiling)
        ]
        return self.graph.node("Clip", [name, *bounds], f"{name}.rectified")

    def rectify(self, value: Value, floor: float, ceiling: float) -> Value:
        """Bound a value, which a quantizer behind it can do by itself: rounding keeps the order of numbers."""
        if isinstance(value, Codes):
            grid = value.grid
            if floor not in (0, -np.inf) or ceiling < (grid.high - grid.zero_point) * grid.scale:
                return Real(self.real(value), floor, ceiling)  # the bound may lie between two integers
            low = max(grid.low, grid.code(floor))
            return value if low == grid.low else self._bounded(value.name, evolve(grid, low=low), f"{value.name}.act")
        if isinstance(value, Other):
            raise NoWayError(f"it reads {value.dtype}")
        return evolve(value, floor=max(value.floor, floor), ceiling=min(value.ceiling, ceiling))

    def quantize(self, value: Value, quant: FakeQuant | None, site: str, rank: int) -> Value:
        """Round a value of ``rank`` dimensions to the grid of a quantizer; without an active one it stays as it is."""
        if quant is None or not bool(quant.active):
            return value
        grid = grid_of(quant)
        if grid is None:
            return Real(self._rounded(self.real(value), quant, site, rank))
        if isinstance(value, (Codes, Other)):
            floor, ceiling = -np.inf, np.inf
        else:
            floor, ceiling = value.floor, value.ceiling
        tight = evolve(grid, low=grid.code(floor), high=grid.code(ceiling))
        name = site if (tight.low, tight.high) == (0, TOP) else f"{site}.unbounded"
        if isinstance(value, Product):
            codes = value.quantized(grid, name)
        else:
            source = value.name if isinstance(value, Real) else self.real(value)
            codes = self.graph.node("QuantizeLinear", [source, *self.grid_constants(grid)], name)
        made = self.quantized[site] = self._bounded(codes, tight, site)
        if isinstance(value, Product):
            self._made_by_layers.add(made.name)
        return made

    def _bounded(self, name: str, grid: Grid, result: str) -> Codes:
        if (grid.low, grid.high) == (0, TOP):
            return Codes(name, grid)
        bounds = [self.graph.constant(np.uint8(bound), "bound") for bound in (grid.low, grid.high)]
        return Codes(self.graph.node("Clip", [name, *bounds], result), grid)

    def grid_constants(self, grid: Grid) -> list[str]:
        """Names of a grid's scale and zero point."""
        return [self.graph.constant(grid.scale, "scale"), self.graph.constant(np.uint8(grid.zero_point), "zero_point")]

    def _rounded(self, name: str, quant: FakeQuant, site: str, rank: int) -> str:
        """A quantizer in real arithmetic: several ranges, or one that uint8 cannot hold."""
        node, low, high = self.graph.node, *quant.code_bounds
        like = quant.scale.new_empty([1] * rank)
        scale, zero_point = (array(along(each, like, quant.axis).float()) for each in (quant.scale, quant.zero_point))
        bounds = [self.graph.constant(np.float32(low) - zero_point, "low"),
                  self.graph.constant(np.float32(high) - zero_point, "high")]  # fmt: skip
        size = self.graph.constant(scale, "scale")
        steps = node("Round", [node("Div", [name, size], f"{site}.steps")], f"{site}.rounded")
        steps = node("Min", [node("Max", [steps, bounds[0]], f"{site}.least"), bounds[1]], f"{site}.most")
        return node("Mul", [steps, size], site)

    def weight(self, path: str, kernel: Kernel) -> str:
        """Real weights written in a way of a dialect's own; empty if it has none."""
        return ""

    def masked(self, value: Value, mask: ChannelMask | None, site: str, rank: int) -> Value:
        """Set dropped channels to 0; a mask that is not there leaves the value as it is."""
        if mask is None or bool(mask.keep.all()):
            return value
        keep = array(mask.keep.float()).reshape([-1] + [1] * (rank - 1 - mask.axis % rank))
        return Real(self.graph.node("Mul", [self.real(value), self.graph.constant(keep, f"{site}.keep")], site))

    def moved(self, kind: str, value: Value, name: str, inputs: Sequence[str] = (), **attributes: Any) -> Value:
        """A node that moves numbers about without changing any: integers stay integers."""
        result = self.graph.node(kind, [self.name(value), *inputs], name, **attributes)
        return Codes(result, value.grid) if isinstance(value, Codes) else Real(result)

    def zero(self, value: Value) -> str:
        """The constant that is 0 among the numbers of ``value``."""
        if isinstance(value, Codes):
            return self.graph.constant(np.uint8(value.grid.zero_point), "zero_point")
        return self.graph.constant(np.float32(0), "zero")

    def length(self, value: Any) -> str:
        """A side length, known or not, as a tensor of one number."""
        return value.name if isinstance(value, Size) else self.integers([int(value)], "length")

    def lengths(self, values: Sequence[Any], name: str) -> str:
        """Side lengths, known or not, as a tensor."""
        if any(isinstance(value, Size) for value in values):
            return self.graph.node("Concat", [self.length(value) for value in values], name, axis=0)
        return self.integers(values, "lengths")

    def integers(self, values: Sequence[int], name: str) -> str:
        """A constant of int64, as shapes are."""
        return self.graph.constant(np.asarray(values, dtype=np.int64), name)
