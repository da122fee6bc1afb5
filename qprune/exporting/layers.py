"""How each kind of layer is written; convolutions and linear layers have a file of their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import evolve
from torch import nn

from qprune.errors import ExportError
from qprune.exporting.functions import FUNCTIONS
from qprune.exporting.kernels import of_each_channel
from qprune.exporting.lowering import Lowering
from qprune.exporting.moving import Shape, joined
from qprune.exporting.picking import picked
from qprune.exporting.values import Codes, Real, Value, array
from qprune.exporting.weighted import in_integers, weighted
from qprune.graph import leaf_type
from qprune.layers import Align, Aligned, ChannelMask, Compressed, FakeQuant
from qprune.shrinking import scale_and_shift
from qprune.zoo import Add, Concat


def lower_layer(low: Lowering, path: str, layer: Any, values: tuple[Any, ...], shapes: Sequence[Shape]) -> Value:
    """Write one call of a layer, with what qprune put around it."""
    write = _writer(layer)
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
        value = low.quantize(value, layer.slot("output", "quant"), f"{path}.output", len(shape))
    result = layer.result if isinstance(layer, Aligned) else None
    return value if result is None else picked(low, value, result, f"{path}.result", (shape[0], None, *shape[2:]))


def _writer(layer: nn.Module) -> Callable[..., Value] | None:
    return next((write for kinds, write in LAYERS.items() if isinstance(layer, kinds)), None)


def _weighted(low: Lowering, path: str, layer: Any, shape: Shape, value: Value, output_size: Any = None) -> Value:
    if output_size is not None:
        raise ExportError(
            f"{path} is told its output_size in each call, for which there is no way into an ONNX file; give the layer "
            "its output_padding"
        )
    return weighted(low, path, layer, value, len(shape))


def _norm(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    if not getattr(layer, "track_running_stats", True):
        return _normalized(low, path, layer, shape, value)
    scale, shift = (array(each) for each in scale_and_shift(layer))

    def real() -> str:
        factors, terms = (each.reshape([-1] + [1] * (len(shape) - 2)) for each in (scale, shift))
        node, constant = low.graph.node, low.graph.constant
        scaled = node("Mul", [low.real(value), constant(factors, f"{path}.scale")], f"{path}.scaled")
        return node("Add", [scaled, constant(terms, f"{path}.shift")], path)

    if not isinstance(value, Codes) or len(shape) != 4:
        return Real(real())
    return evolve(in_integers(low, path, of_each_channel(scale, shift, value.grid.scale), value), real=real)


def _normalized(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    """A normalization by the statistics of each image."""
    grouped = isinstance(layer, nn.GroupNorm)
    kind, options = (
        ("GroupNormalization", {"num_groups": layer.num_groups}) if grouped else ("InstanceNormalization", {})
    )
    weight = np.ones(shape[1], np.float32) if layer.weight is None else array(layer.weight)
    bias = np.zeros(shape[1], np.float32) if layer.bias is None else array(layer.bias)
    affine = [low.graph.constant(weight, f"{path}.weight"), low.graph.constant(bias, f"{path}.bias")]
    return Real(low.graph.node(kind, [low.real(value), *affine], path, epsilon=float(layer.eps), **options))


def _align(low: Lowering, path: str, layer: Any, shape: Shape, value: Value) -> Value:
    return picked(low, value, layer, path, shape)


def _masked(low: Lowering, path: str, layer: ChannelMask, shape: Shape, value: Value) -> Value:
    return low.masked(value, layer, path, len(shape))


def _quantized(low: Lowering, path: str, layer: FakeQuant, shape: Shape, value: Value, *_: Any) -> Value:
    return low.quantize(value, layer, path.removesuffix("_quant"), len(shape))


def _operation(name: str, *options: str) -> Callable[..., Value]:
    """A layer that is one operation, with what the layer knows as its options."""

    def write(low: Lowering, path: str, layer: Any, shape: Shape, *values: Value) -> Value:
        return FUNCTIONS[name](low, path, shape, *values, *(getattr(layer, option) for option in options))

    return write


def _add(low: Lowering, path: str, layer: Any, shape: Shape, *values: Value) -> Value:
    """Add them one by one, as `Add` does."""
    result = low.summand(values[0])
    for count, value in enumerate(values[1:], 2):
        name = path if count == len(values) else f"{path}.first_{count}"
        result = low.graph.node("Add", [result, low.summand(value)], name)
    return Real(result)


def _concat(low: Lowering, path: str, layer: Any, shape: Shape, *values: Value) -> Value:
    return joined(low, path, shape, values, layer.dim)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is written as one layer; the others, subclasses of such too, are what they compute.

    Of a host that is none of `LAYERS`, the mask and the quantizer are such, and its layer of torch is what it computes.
    """
    if isinstance(module, (ChannelMask, FakeQuant)):
        return True
    return leaf_type(module) is not None and (
        isinstance(module, WRITTEN_WHOLE) or (isinstance(module, Compressed) and _writer(module) is not None)
    )


WRITTEN_WHOLE = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d,
    nn.GroupNorm, Align,
)  # fmt: skip
LAYERS: Mapping[Any, Callable[..., Value]] = {
    (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear): _weighted,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d): _norm,
    (nn.GroupNorm,): _normalized,
    (Align,): _align,
    (ChannelMask,): _masked,
    (FakeQuant,): _quantized,
    (nn.ReLU6,): _operation("hardtanh", "min_val", "max_val"),
    (nn.ReLU,): _operation("relu"),
    (nn.LeakyReLU,): _operation("leaky_relu", "negative_slope"),
    (nn.AvgPool2d,): _operation(
        "avg_pool2d", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
    ),
    (nn.AdaptiveAvgPool2d,): _operation("_adaptive_avg_pool2d", "output_size"),
    (Add,): _add,
    (Concat,): _concat,
}
