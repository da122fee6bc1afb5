"""An ONNX graph while it is written: nodes, constants, names that are those of the network."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from qprune.exporting.packages import import_onnx
from qprune.exporting.quant_node import OPSET, runnable

IR_VERSION = 10  # of that opset; later ones are refused by runtimes that know the opset


class Graph:
    """Collects nodes and constants, and gives each tensor a name of its own."""

    domains: ClassVar[dict[str, int]] = {"": OPSET}

    def __init__(self) -> None:
        self.onnx = import_onnx()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._names: set[str] = set()
        self._constants: dict[tuple[Any, ...], str] = {}

    def unique(self, name: str) -> str:
        """``name``, or the first free one of ``name_1``, ``name_2``, ..."""
        free, count = name, 0
        while free in self._names or not free:
            count += 1
            free = f"{name or 'x'}_{count}"
        self._names.add(free)
        return free

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add one node of one output, called ``name`` if that is free; returns its name."""
        return self.nodes_of(kind, inputs, [name], **attributes)[0]

    def nodes_of(self, kind: str, inputs: Sequence[str], names: Sequence[str], **attributes: Any) -> list[str]:
        """Add one node of several outputs; returns their names."""
        results = [self.unique(name) for name in names]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), results, results[0], **attributes))
        return results

    def same(self, given: str, name: str) -> None:
        """Give a tensor another name, which must be free, or kept for it by `unique`."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [given], [name], name))

    def put_in(self, model: Any, inputs: Sequence[str], name: str) -> list[str]:
        """Add the nodes of another model, which reads these tensors; returns the names of its outputs."""
        prefix = f"{self.unique(name)}/"
        part = self.onnx.compose.add_prefix_graph(model.graph, prefix)
        for given, own in zip(inputs, part.input, strict=True):
            self.same(given, own.name)
        self.nodes.extend(part.node)
        self.initializers.extend(part.initializer)
        return [each.name for each in part.output]

    def constant(self, values: Any, name: str, kind: Any = None) -> str:
        """Add a constant, once for equal values; returns its name."""
        array = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
        key = (array.dtype.str, array.shape, array.tobytes(), kind)
        if key not in self._constants:
            self._constants[key] = self.unique(name)
            self.initializers.append(self._tensor(array, self._constants[key], kind))
        return self._constants[key]

    def _tensor(self, array: Any, name: str, kind: Any) -> Any:
        if kind is None:
            return self.onnx.numpy_helper.from_array(array, name)
        nibbles = np.append(array.reshape(-1).astype(np.uint8) & 15, np.zeros(array.size % 2, np.uint8))
        packed = nibbles[::2] | nibbles[1::2] << 4
        return self.onnx.helper.make_tensor(name, kind, array.shape, packed.tobytes(), raw=True)

    def input(self, name: str, shape: Sequence[int | None], symbols: Sequence[str | None]) -> None:
        """Declare a float input, whose name nothing else may have."""
        self._names.add(name)
        self.inputs.append(self._value(name, shape, symbols))

    def output(
        self, name: str, shape: Sequence[int | None], symbols: Sequence[str | None], kind: Any = np.float32
    ) -> None:
        """Declare a tensor that was made as an output, of numbers of a kind that numpy knows."""
        self.outputs.append(self._value(name, shape, symbols, kind))

    def _value(
        self, name: str, shape: Sequence[int | None], symbols: Sequence[str | None], kind: Any = np.float32
    ) -> Any:
        sides = [symbol or size for size, symbol in zip(shape, symbols, strict=True)]
        helper = self.onnx.helper
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), sides)

    def model(self) -> Any:
        """The finished model, checked together with what operators of other domains compute."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, "network", self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="qprune", ir_version=IR_VERSION)
        self.onnx.checker.check_model(runnable(model), full_check=True)
        return model
