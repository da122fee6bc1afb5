"""Convolutions and linear layers: with integers where input and weight are integers, else with real numbers."""

from typing import Any

import numpy as np
from torch import nn

from qprune.exporting.arithmetic import convolved
from qprune.exporting.kernels import LARGEST_BIAS, Kernel, kernel_of
from qprune.exporting.lowering import Layer, Lowering
from qprune.exporting.moving import padded
from qprune.exporting.values import Codes, Grid, Product, Real, Value, array
from qprune.layers import Compressed, CompressedWeight


def weighted(low: Lowering, path: str, layer: Any, value: Value, rank: int) -> Value:
    """Write a convolution, a transposed one or a linear layer, of inputs with so many dimensions."""
    if isinstance(layer, CompressedWeight):
        value = low.masked(value, layer.input_mask, f"{path}.input_mask", rank)
        value = low.quantize(value, layer.input_quant, f"{path}.input", rank)
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        sides = layer._reversed_padding_repeated_twice
        value = padded(low, f"{path}.padded", (1,) * rank, value, sides, mode=layer.padding_mode)
    kernel = kernel_of(layer)
    reason = _why_real(layer, value, kernel, low.packed)
    low.layers.append(Layer(path, not reason, reason))
    if kernel is None:
        return _transposed(low, path, layer, value)
    if reason or not isinstance(value, Codes):
        return _in_reals(low, path, kernel, value, low.packed and _bits(layer) <= 4)
    return in_integers(low, path, kernel, value, as_rows=isinstance(layer, nn.Linear) and rank != 2)


def _bits(layer: Any) -> int:
    quant = layer.slot("weight", "quant") if isinstance(layer, Compressed) else None
    return 32 if quant is None or not bool(quant.active) else int(quant.bits)


def _why_real(layer: Any, value: Value, kernel: Kernel | None, packed: bool) -> str:
    if _bits(layer) == 32:
        return "its weights have no quantizer"
    if not isinstance(value, Codes):
        return "its input has no quantizer of one range"
    if kernel is None:
        return "no runtime has integer kernels for this transposed convolution"
    if kernel.scale is None:
        return "the integers of its weights do not lie around 0"
    return "its weights are held as 4-bit integers" if packed and _bits(layer) <= 4 else ""


def _in_reals(low: Lowering, path: str, kernel: Kernel, value: Value, packed: bool) -> Value:
    node, constant = low.graph.node, low.graph.constant
    weight = low.weight(path, kernel) or _real_weight(low, path, kernel, packed)
    bias = [] if kernel.bias is None else [constant(kernel.bias, f"{path}.bias")]
    if not kernel.attributes:
        weight = node("Transpose", [weight], f"{path}.columns", perm=[1, 0])
        product = node("MatMul", [low.real(value), weight], f"{path}.product")
        return Real(node("Add", [product, *bias], path) if bias else product)
    name = _before_spread(path, kernel)
    return _spread(low, path, kernel, Real(node("Conv", [low.real(value), weight, *bias], name, **kernel.attributes)))


def _real_weight(low: Lowering, path: str, kernel: Kernel, packed: bool) -> str:
    if kernel.scale is None:
        return low.graph.constant(kernel.rows, f"{path}.weight")
    kind = low.graph.onnx.TensorProto.INT4 if packed else None
    integers, zero = (kernel.rows, np.int8(0)) if packed or low.signed else (_unsigned(kernel.rows), np.uint8(128))
    inputs = [
        low.graph.constant(integers, f"{path}.weight", kind),
        low.graph.constant(kernel.scale, f"{path}.weight.scale"),
        low.graph.constant(np.full(len(kernel.scale), zero), f"{path}.weight.zero_point", kind),
    ]
    return low.graph.node("DequantizeLinear", inputs, f"{path}.weight.real", axis=0)


def _unsigned(rows: Any) -> Any:
    return (rows.astype(np.int16) + 128).astype(np.uint8)


def _transposed(low: Lowering, path: str, layer: Any, value: Value) -> Value:
    weight, bias = layer._weight_and_bias() if isinstance(layer, CompressedWeight) else (layer.weight, layer.bias)
    weight = Real(low.graph.constant(array(weight), f"{path}.weight"))
    bias = None if bias is None else Real(low.graph.constant(array(bias), f"{path}.bias"))
    options = (layer.stride, layer.padding, layer.dilation, True, layer.output_padding, layer.groups)
    return convolved(low, path, (), value, weight, bias, *options)


def in_integers(low: Lowering, path: str, kernel: Kernel, value: Codes, *, as_rows: bool = False) -> Product:
    """What a layer with integer weights makes of integers, to be written when it is known who reads it.

    If ``as_rows``, a linear layer's input has more than two dimensions, and becomes one list of rows for a moment: only
    for such there is an integer layer with a bias.
    """
    kernel = kernel.with_room(value.grid.scale, LARGEST_BIAS)

    def quantized(grid: Grid, name: str) -> str:
        if as_rows:
            return _quantized_rows(low, path, kernel, value, grid, name)
        codes = _quantized(low, path, kernel, value, grid, _before_spread(name, kernel))
        return _spread(low, name, kernel, Codes(codes, grid)).name

    def real() -> str:
        sums = _sums(low, path, kernel, value, _before_spread(path, kernel))
        return _spread(low, path, kernel, Real(sums)).name

    return Product(quantized, real)


def _quantized(low: Lowering, path: str, kernel: Kernel, value: Codes, grid: Grid, name: str) -> str:
    """Pairs of Quantize and Dequantize around the layer, which runtimes fuse into one integer layer."""
    node = low.graph.node
    inputs = [low.real(value), _real_weight(low, path, kernel, packed=False)]
    if kernel.bias is not None:
        step = kernel.scale * value.grid.scale
        codes = low.graph.constant(_bias_codes(kernel, value), f"{path}.bias")
        parts = [codes, low.graph.constant(step, f"{path}.bias.scale")]
        inputs.append(node("DequantizeLinear", parts, f"{path}.bias.real", axis=0))
    if kernel.attributes:
        result = node("Conv", inputs, path, **kernel.attributes)
    else:
        result = node("Gemm", inputs, path, transB=1)
    return node("QuantizeLinear", [result, *low.grid_constants(grid)], name)


def _quantized_rows(low: Lowering, path: str, kernel: Kernel, value: Codes, grid: Grid, name: str) -> str:
    node = low.graph.node
    rows = node("Reshape", [value.name, low.integers([-1, kernel.rows.shape[1]], "shape")], f"{path}.rows")
    codes = _quantized(low, path, kernel, Codes(rows, value.grid), grid, f"{name}.rows")
    sides = [node("Shape", [value.name], f"{path}.sides", end=-1), low.integers([len(kernel.rows)], "outputs")]
    return node("Reshape", [codes, node("Concat", sides, f"{path}.shape", axis=0)], name)


def _sums(low: Lowering, path: str, kernel: Kernel, value: Codes, name: str) -> str:
    """Integer sums, and real numbers only of them."""
    node, constant = low.graph.node, low.graph.constant
    # around 128: the runtime's kernel for int8 weights took four to seven times as long
    integers = _unsigned(kernel.rows)
    points = [constant(np.uint8(each), "zero_point") for each in (value.grid.zero_point, 128)]
    if kernel.attributes:
        inputs = [value.name, constant(integers, f"{path}.weight"), *points]
        sums = node("ConvInteger", inputs, f"{path}.sums", **kernel.attributes)
    else:
        inputs = [value.name, constant(integers.T, f"{path}.weight.columns"), *points]
        sums = node("MatMulInteger", inputs, f"{path}.sums")
    shape = [1, -1] + [1] * (kernel.rows.ndim - 2)
    if kernel.bias is not None:
        bias = constant(_bias_codes(kernel, value).reshape(shape), f"{path}.bias.sums")
        sums = node("Add", [sums, bias], f"{path}.biased")
    step = constant((kernel.scale * value.grid.scale).reshape(shape), f"{path}.step")
    return node("Mul", [node("Cast", [sums], f"{path}.cast", to=low.graph.onnx.TensorProto.FLOAT), step], name)


def _bias_codes(kernel: Kernel, value: Codes) -> Any:
    steps = np.rint(kernel.bias.astype(np.float64) / (kernel.scale * value.grid.scale))
    return np.clip(steps, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32)


def _before_spread(name: str, kernel: Kernel) -> str:
    return name if kernel.block == 1 else f"{name}.blocks"


def _spread(low: Lowering, name: str, kernel: Kernel, value: Any) -> Any:
    """Put the outputs of several positions where they belong."""
    if kernel.block == 1:
        return value
    cuts = any(kernel.cut)
    value = low.moved("DepthToSpace", value, f"{name}.whole" if cuts else name, blocksize=kernel.block, mode="DCR")
    if not cuts:
        return value
    ends = [-cut if cut else np.iinfo(np.int64).max for cut in kernel.cut]
    corners = [low.integers(each, "corner") for each in ([0, 0], ends, [2, 3])]
    return low.moved("Slice", value, name, corners)
