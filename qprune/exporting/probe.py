"""Whether this processor's integer kernels are exact."""

from functools import lru_cache

import numpy as np
import torch

from qprune.exporting.graph import Graph
from qprune.exporting.running import OnnxModel

TERMS = 64


@lru_cache(maxsize=1)
def saturates() -> bool:
    """Whether sums of products of 8-bit integers saturate here, as x86 processors without VNNI let them.

    There two products of uint8 and int8 are added in 16 bits, where 2 * 255 * 127 has no room. One layer of the largest
    numbers shows it. The layer is one of those that files hold: not every operator has such kernels, ConvInteger has
    none.
    """
    graph = Graph()
    graph.input("x", (1, TERMS, 1, 1), (None,) * 4)
    one, zero = graph.constant(np.float32(1), "one"), graph.constant(np.uint8(0), "zero")
    codes = graph.node("QuantizeLinear", ["x", one, zero], "codes")
    weight = graph.constant(np.full((8, TERMS, 1, 1), 127, np.int8), "weight")
    step = graph.constant(np.float32(TERMS * 127), "step")  # of which the sum of TERMS * 255 * 127 has 255
    grids = [codes, one, zero, weight, one, graph.constant(np.int8(0), "weight_zero"), step, zero]
    result = graph.node("QLinearConv", grids, "result")
    real = graph.node("Cast", [result], "real", to=graph.onnx.TensorProto.FLOAT)
    graph.output(real, (1, 8, 1, 1), (None,) * 4)
    found = OnnxModel(graph.model().SerializeToString())(torch.full((1, TERMS, 1, 1), 255.0))
    return bool((found != 255).any())
