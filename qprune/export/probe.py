"""Whether this processor's integer kernels are exact."""

from functools import lru_cache

import numpy as np
import torch

from qprune.export.graph import Graph
from qprune.export.running import OnnxModel

TERMS = 64


@lru_cache(maxsize=1)
def saturates() -> bool:
    """Whether sums of products of 8-bit integers saturate here, as x86 processors without VNNI let them.

    There two products of uint8 and int8 are added in 16 bits, where 2 * 255 * 127 has no room. One product of the
    largest numbers shows it.

    Raises:
        ExportError: if the runtime is not installed.

    Example:
        >>> saturates()
        False
    """
    graph = Graph()
    graph.input("x", (1, TERMS, 1, 1), (None,) * 4)
    one, zero = graph.constant(np.float32(1), "one"), graph.constant(np.uint8(0), "zero")
    codes = graph.node("QuantizeLinear", ["x", one, zero], "codes")
    weight = graph.constant(np.full((8, TERMS, 1, 1), 127, np.int8), "weight")
    sums = graph.node("ConvInteger", [codes, weight, zero, graph.constant(np.int8(0), "weight_zero")], "sums")
    real = graph.node("Cast", [sums], "real", to=graph.onnx.TensorProto.FLOAT)
    graph.output(real, (1, 8, 1, 1), (None,) * 4)
    found = OnnxModel(graph.model().SerializeToString())(torch.full((1, TERMS, 1, 1), 255.0))
    return bool((found != TERMS * 255 * 127).any())
