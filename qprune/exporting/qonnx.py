"""QONNX: float weights and tensors with a `Quant` node behind each, as FINN and hls4ml read them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from attrs import field, frozen
from torch import nn

from qprune.errors import ExportError
from qprune.exporting.comparing import Inputs
from qprune.exporting.file_format import Made
from qprune.exporting.graph import Graph
from qprune.exporting.kernels import Kernel
from qprune.exporting.lowering import Lowering
from qprune.exporting.onnx_format import Onnx, made_of
from qprune.exporting.quant_node import DOMAIN
from qprune.exporting.values import Real, Value, array
from qprune.exporting.writing import Walk, Written, followed
from qprune.functional import along
from qprune.layers import FakeQuant


class Qonnx(Onnx):
    """An ONNX file of real numbers with a ``Quant`` node behind each quantized tensor; see `write_qonnx`."""

    stores_integers = False

    def write(
        self, net: nn.Module, inputs: Inputs, *, storage: str, dynamic_size: bool | None, about: Mapping[str, Any]
    ) -> Made:
        """Write the network in real numbers."""
        if dynamic_size:
            raise ExportError("A QONNX file has the shapes of the example: leave dynamic_size out.")
        return made_of(write_qonnx(net, inputs), inputs, about)


def write_qonnx(net: nn.Module, example: Any) -> Written:
    """Write a network as a QONNX model: real numbers throughout, with a ``Quant`` node for each active quantizer.

    Dropped channels are taken out and normalizations folded first, see `qprune.shrink`. A ``Quant`` node (domain
    ``qonnx.custom_op.general``) reads a tensor, a scale, a zero point and a number of bits, and stands behind each
    quantized weight and activation. Shapes are those of the example, which is what tools that make hardware want.

    Args:
        net: any network. It is not touched.
        example: an input of it: a tensor or a tuple of them. Its values do not matter.

    Raises:
        ExportError: if ``onnx`` is missing, or the network calls what there is no way to write; it is named.

    Source: Pappalardo et al. (2022), arXiv:2206.07527.

    Example:
        >>> net = nn.Sequential(QuantConv2d(3, 4, 1))
        >>> model = write_qonnx(qprune.calibrate(net, [images]), images[:1]).model
        >>> [node.op_type for node in model.graph.node]
        ['Quant', 'Quant', 'Conv', 'Identity']
    """
    small, nodes, inputs = followed(net, example, images=False, sides=False)
    return QonnxWalk(small, nodes, inputs, QonnxLowering(net=small), False).written()


class QonnxGraph(Graph):
    """`Graph` with nodes of the QONNX domain."""

    domains: ClassVar[dict[str, int]] = {**Graph.domains, DOMAIN: 1}

    def quant(self, x: str, *, scale: Any, zero_point: Any, bits: int, signed: bool, narrow: bool, name: str) -> str:
        """Add one ``Quant`` node; ``narrow`` leaves out the smallest integer. Returns the name of its result."""
        numbers = {"scale": scale, "zero_point": zero_point, "bits": bits}
        inputs = [self.constant(np.asarray(value, np.float32), word) for word, value in numbers.items()]
        attributes = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"}
        return self.node("Quant", [x, *inputs], name, domain=DOMAIN, **attributes)


@frozen(eq=False)
class QonnxLowering(Lowering):
    """`Lowering` that keeps real numbers, and writes a quantizer as one node."""

    graph: QonnxGraph = field(factory=QonnxGraph)
    net: nn.Module = field(factory=nn.Module)

    def quantize(self, value: Value, quant: FakeQuant | None, site: str, rank: int) -> Value:
        """Round a value of ``rank`` dimensions to the grid of a quantizer; without an active one it stays as it is."""
        if quant is None or not bool(quant.active):
            return value
        like = quant.scale.new_empty([1] * rank)
        scale, zero_point = (array(along(each, like, quant.axis).float()) for each in (quant.scale, quant.zero_point))
        return Real(
            self.graph.quant(self.real(value), scale=scale, zero_point=zero_point, name=site, **_integers(quant))
        )

    def weight(self, path: str, kernel: Kernel) -> str:
        """The weights of a layer as real numbers on their grid, and the node that says so; empty without a grid."""
        if kernel.scale is None:
            return ""
        quant: Any = self.net.get_submodule(path).weight_quant
        scale = kernel.scale.reshape([-1] + [1] * (kernel.rows.ndim - 1))
        reals = self.graph.constant(kernel.rows * scale, f"{path}.weight.real")
        scale = scale.reshape(-1)[:1].reshape(()) if quant.channels is None else scale
        return self.graph.quant(reals, scale=scale, zero_point=0, name=f"{path}.weight", **_integers(quant))


def _integers(quant: FakeQuant) -> dict[str, Any]:
    narrow = quant.symmetric and quant.code_bounds[0] > -(2 ** (quant.bits - 1))
    return {"bits": quant.bits, "signed": quant.symmetric, "narrow": narrow}


class QonnxWalk(Walk):
    """One network on its way into a QONNX file: all shapes fixed."""

    def _symbols(self, shape: Sequence[int]) -> list[str | None]:
        return [None] * len(shape)
