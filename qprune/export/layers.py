"""How each kind of layer is written; convolutions and linear layers have a file of their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import evolve
from torch import nn

from qprune.errors import ExportError
from qprune.export.kernels import of_each_channel
from qprune.export.lowering import Lowering
from qprune.export.picking import picked
from qprune.export.values import Codes, Real, Value, array
from qprune.export.weighted import in_integers, weighted
from qprune.layers import Align, Aligned, Compressed
from qprune.shrink import scale_and_shift
from qprune.zoo import Add, Concat

Shape = tuple[int, ...]


def lower_layer(low: Lowering, path: str, layer: Any, values: tuple[Any, ...], shapes: Sequence[Shape]) -> Value:
    """Write one call of a layer, with what qprune put around it.

    Args:
        low: the file.
        path: module path.
        layer: the layer.
        values: its arguments.
        shapes: of its arguments, in the example.

    Raises:
        ExportError: if there is no way to write such a layer.
    """
    write = next((write for kinds, write in LAYERS.items() if isinstance(layer, kinds)), None)
    if write is None:
        raise ExportError(f"{path} is {type(layer).__name__}, for which there is no way into an ONNX file")
    aligns = layer.arguments if isinstance(layer, Aligned) else ()
    aligned = [
        picked(low, value, align, f"{path}.argument", shape) if isinstance(align, Align) else value
        for align, value, shape in zip(aligns, values, shapes, strict=False)
    ]
    shape = shapes[0]
    value = write(low, path, layer, shape, *aligned, *values[len(aligned) :])
    if isinstance(layer, Compressed):
        value = low.masked(value, layer.slot("output", "mask"), f"{path}.output_mask", len(shape))
        value = low.quantize(value, layer.slot("output", "quant"), f"{path}.output")
    result = layer.result if isinstance(layer, Aligned) else None
    return value if result is None else picked(low, value, result, f"{path}.result", (shape[0], None, *shape[2:]))


def _same(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    return value


def _weighted(low: Lowering, path: str, layer: Any, shape: Shape, value: Value, output_size: Any = None) -> Value:
    if output_size is not None:
        raise ExportError(
            f"{path} is told its output_size in each call, for which there is no way into an ONNX file; give the layer "
            "its output_padding"
        )
    if isinstance(layer, nn.Linear) and len(shape) != 2:
        raise ExportError(f"{path} is a linear layer of inputs with {len(shape)} dimensions; flatten them first")
    return weighted(low, path, layer, value)


def _simple(kind: str, **fixed: Any) -> Callable[..., Value]:
    def write(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
        options = {name: float(getattr(layer, source)) for name, source in fixed.items()}
        return Real(low.graph.node(kind, [low.real(value)], path, **options))

    return write


def _bounded(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    ceiling = {nn.ReLU: np.inf, nn.ReLU6: 6.0}
    bounds = next(((0.0, high) for kind, high in ceiling.items() if isinstance(layer, kind)), None)
    floor, high = bounds or (float(layer.min_val), float(layer.max_val))
    return low.rectify(value, floor, high)


def _silu(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    name = low.real(value)
    return Real(low.graph.node("Mul", [name, low.graph.node("Sigmoid", [name], f"{path}.gate")], path))


def _hardsigmoid(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    return Real(low.graph.node("HardSigmoid", [low.real(value)], path, alpha=1 / 6, beta=0.5))


def _gelu(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    return Real(low.graph.node("Gelu", [low.real(value)], path, approximate=layer.approximate))


def _norm(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    if not getattr(layer, "track_running_stats", True):
        return _instance_norm(low, path, layer, shape, value)
    scale, shift = (array(each) for each in scale_and_shift(layer))

    def real() -> str:
        factors, terms = (each.reshape([-1] + [1] * (len(shape) - 2)) for each in (scale, shift))
        node, constant = low.graph.node, low.graph.constant
        scaled = node("Mul", [low.real(value), constant(factors, f"{path}.scale")], f"{path}.scaled")
        return node("Add", [scaled, constant(terms, f"{path}.shift")], path)

    if not isinstance(value, Codes) or len(shape) != 4:
        return Real(real())
    return evolve(in_integers(low, path, of_each_channel(scale, shift, value.grid.scale), value), real=real)


def _instance_norm(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    weight = np.ones(shape[1], np.float32) if layer.weight is None else array(layer.weight)
    bias = np.zeros(shape[1], np.float32) if layer.bias is None else array(layer.bias)
    affine = [low.graph.constant(weight, f"{path}.weight"), low.graph.constant(bias, f"{path}.bias")]
    return Real(low.graph.node("InstanceNormalization", [low.real(value), *affine], path, epsilon=float(layer.eps)))


def _group_norm(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    weight = np.ones(shape[1], np.float32) if layer.weight is None else array(layer.weight)
    bias = np.zeros(shape[1], np.float32) if layer.bias is None else array(layer.bias)
    affine = [low.graph.constant(weight, f"{path}.weight"), low.graph.constant(bias, f"{path}.bias")]
    options = {"num_groups": layer.num_groups, "epsilon": float(layer.eps)}
    return Real(low.graph.node("GroupNormalization", [low.real(value), *affine], path, **options))


def _max_pool(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    if layer.return_indices:
        raise ExportError(f"{path} returns the places of its maxima, for which there is no way into an ONNX file")
    return low.moved("MaxPool", low.settled(value), path, **pooling(layer), dilations=pair(layer.dilation))


def _average_pool(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    if layer.divisor_override is not None:
        raise ExportError(f"{path} has a divisor of its own, for which there is no way into an ONNX file")
    options = pooling(layer) | {"count_include_pad": int(layer.count_include_pad)}
    return Real(low.graph.node("AveragePool", [low.real(value)], path, **options))


def _adaptive_pool(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    return adaptive(low, path, layer.output_size, shape, value, isinstance(layer, nn.AdaptiveMaxPool2d))


def adaptive(low: Lowering, path: str, size: Any, shape: Shape, value: Value, largest: bool) -> Value:
    """Pool to a fixed size: globally, or with windows that fit the size of the example exactly."""
    sides = [given if side is None else side for side, given in zip(pair(size), shape[2:], strict=True)]
    kind = "Max" if largest else "Average"
    if sides == [1, 1]:
        return Real(low.graph.node(f"Global{kind}Pool", [low.real(value)], path))
    if any(given % side for given, side in zip(shape[2:], sides, strict=True)):
        raise ExportError(f"{path} pools {shape[2:]} to {tuple(sides)}, which no window of one size does")
    window = [given // side for given, side in zip(shape[2:], sides, strict=True)]
    return Real(low.graph.node(f"{kind}Pool", [low.real(value)], path, kernel_shape=window, strides=window))


def _pad(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    left, right, top, bottom = layer.padding
    modes = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "edge"}
    mode = next((mode for kind, mode in modes.items() if isinstance(layer, kind)), "constant")
    return padded(low, path, value, [top, left, bottom, right], mode)


def padded(low: Lowering, path: str, value: Value, pads: list[int], mode: str) -> Value:
    """Pad height and width; in integers, too, where the padding is among the numbers."""
    top, left, bottom, right = pads
    value = low.settled(value)
    inputs = [low.integers([0, 0, top, left, 0, 0, bottom, right], "pads")]
    if mode == "constant":
        inputs.append(low.zero(value))
    return low.moved("Pad", value, path, inputs, mode=mode)


def _upsample(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    by = pair(layer.size) if layer.scale_factor is None else [float(each) for each in pair(layer.scale_factor)]
    return resized(low, path, value, by, layer.mode, bool(layer.align_corners))


def resized(low: Lowering, path: str, value: Value, by: list[Any], mode: str, corners: bool) -> Value:
    """Resize by factors, which are floats, or to side lengths; to the nearest neighbour in integers, too."""
    if mode not in ("nearest", "bilinear", "bicubic"):
        raise ExportError(f'{path} resizes by "{mode}", for which there is no way into an ONNX file')
    value = low.settled(value)
    if all(isinstance(each, float) for each in by):
        inputs = ["", low.graph.constant(np.asarray([1, 1, *by], np.float32), "factors")]
    else:
        batch = low.graph.node("Shape", [low.name(value)], f"{path}.batch", start=0, end=2)
        sides = [batch, *map(low.length, by)]
        inputs = ["", "", low.graph.node("Concat", sides, f"{path}.size", axis=0)]
    if mode == "nearest":
        rounding = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return low.moved("Resize", value, path, inputs, mode=mode, **rounding)
    options: dict[str, Any] = {
        "coordinate_transformation_mode": "align_corners" if corners else "half_pixel",
        "mode": "linear" if mode == "bilinear" else "cubic",
        "cubic_coeff_a": -0.75,
    }
    return Real(low.graph.node("Resize", [low.real(value), *inputs], path, **options))


def _flatten(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    return flattened(low, path, value, layer.start_dim, layer.end_dim, len(shape))


def flattened(low: Lowering, path: str, value: Value, start: int, end: int, rank: int) -> Value:
    """Join the last dimensions into one."""
    if start % rank != 1 or end % rank != rank - 1:
        raise ExportError(f"{path} flattens dimensions {start} to {end}; only from 1 to the last is there a way")
    return low.moved("Flatten", low.settled(value), path, axis=1)


def _add(low: Lowering, path: str, layer: Any, shape: Shape, *values: Value) -> Value:
    return summed(low, path, *values)


def summed(low: Lowering, path: str, *values: Value) -> Value:
    """Add them one by one, as `Add` does."""
    result = low.real(values[0])
    for count, value in enumerate(values[1:], 2):
        name = path if count == len(values) else f"{path}.first_{count}"
        result = low.graph.node("Add", [result, low.real(value)], name)
    return Real(result)


def _concat(low: Lowering, path: str, layer: Any, shape: Shape, *values: Value) -> Value:
    return joined(low, path, values, layer.dim)


def joined(low: Lowering, path: str, values: Any, axis: int) -> Value:
    """One behind the other; in integers where all stand for the same numbers."""
    first = values[0]
    if isinstance(first, Codes) and all(isinstance(v, Codes) and v.grid.like(first.grid) for v in values):
        return Codes(low.graph.node("Concat", [value.name for value in values], path, axis=axis), first.grid)
    return Real(low.graph.node("Concat", [low.real(value) for value in values], path, axis=axis))


def _align(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    return picked(low, value, layer, path, shape)


def pair(value: Any) -> list[Any]:
    """One number for both sides, or two.

    Example:
        >>> pair(3), pair((2, 5))
        ([3, 3], [2, 5])
    """
    return list(value) if isinstance(value, (tuple, list)) else [value, value]


def pooling(layer: Any) -> dict[str, Any]:
    """Window, stride and padding of a pooling layer, or of anything with these attributes."""
    sides = pair(layer.padding)
    return {
        "kernel_shape": pair(layer.kernel_size),
        "strides": pair(layer.kernel_size if layer.stride is None else layer.stride),
        "pads": [*sides, *sides],
        "ceil_mode": int(layer.ceil_mode),
    }


LAYERS: Mapping[Any, Callable[..., Value]] = {
    (nn.Conv2d, nn.ConvTranspose2d, nn.Linear): _weighted,
    (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout): _same,
    (nn.ReLU, nn.ReLU6, nn.Hardtanh): _bounded,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d): _norm,
    (nn.GroupNorm,): _group_norm,
    (nn.LeakyReLU,): _simple("LeakyRelu", alpha="negative_slope"),
    (nn.ELU,): _simple("Elu", alpha="alpha"),
    (nn.CELU,): _simple("Celu", alpha="alpha"),
    (nn.SELU,): _simple("Selu"),
    (nn.Sigmoid,): _simple("Sigmoid"),
    (nn.Tanh,): _simple("Tanh"),
    (nn.Softsign,): _simple("Softsign"),
    (nn.Mish,): _simple("Mish"),
    (nn.Hardswish,): _simple("HardSwish"),
    (nn.Hardsigmoid,): _hardsigmoid,
    (nn.SiLU,): _silu,
    (nn.GELU,): _gelu,
    (nn.MaxPool2d,): _max_pool,
    (nn.AvgPool2d,): _average_pool,
    (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d): _adaptive_pool,
    (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d): _pad,
    (nn.Upsample,): _upsample,
    (nn.Flatten,): _flatten,
    (Add,): _add,
    (Concat,): _concat,
    (Align,): _align,
}
