"""How the functions in a network's own code are written."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from qprune.errors import ExportError
from qprune.export.layers import adaptive, flattened, joined, padded, pair, pooling, resized, summed
from qprune.export.lowering import Lowering
from qprune.export.values import Codes, Product, Real, Size, Value, array

Shape = tuple[int, ...]
VALUES = (Real, Codes, Product)


def lower_function(low: Lowering, name: str, target: Any, args: Any, kwargs: Any, shape: Shape) -> Any:
    """Write one call of a function, or of a method by its name.

    Args:
        low: the file.
        name: what to call the result.
        target: the function, or the method's name.
        args: positional arguments.
        kwargs: named arguments.
        shape: of the first argument, in the example.

    Raises:
        ExportError: if there is no way to write such a call.
    """
    if callable(target) and not any(isinstance(each, (*VALUES, Size)) for each in tree_leaves((args, kwargs))):
        return _computed(low, name, target, args, kwargs)
    word = target if isinstance(target, str) else target.__name__
    write = FUNCTIONS.get(word.removesuffix("_") if word not in ("and_", "or_") else word)
    if write is None:
        raise ExportError(f"{word} is a function for which there is no way into an ONNX file")
    try:
        return write(low, name, shape, *args, **kwargs)
    except ExportError:
        raise
    except Exception as error:  # arguments that the way does not know, or cannot compute with
        reason = f": {error}" if isinstance(error, _NoWayError) else ""
        call = _call(word, args, kwargs)
        raise ExportError(f"{call} is a call for which there is no way into an ONNX file{reason}") from error


class _NoWayError(Exception):
    """Why a call cannot be written, in the words of an error."""


def _call(word: str, args: Any, kwargs: Any) -> str:
    """The call as its author knows it: ``mean(tensor, keepdim=True)``."""

    def told(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(told, value))}]"
        return "tensor" if isinstance(value, VALUES) else "side" if isinstance(value, Size) else repr(value)

    return f"{word}({', '.join([*map(told, args), *(f'{name}={told(value)}' for name, value in kwargs.items())])})"


def _computed(low: Lowering, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The result of a call that reads no tensor, as of numbers that are known; a tensor becomes a constant."""
    result = function(*args, **kwargs)
    return constant(low, name, result) if isinstance(result, Tensor) else result


def constant(low: Lowering, name: str, tensor: Tensor) -> Real:
    """A tensor that is the same in every forward.

    Raises:
        ExportError: if it holds anything but float32.
    """
    if tensor.dtype != torch.float32:
        raise ExportError(f"{name} holds {tensor.dtype}, and a file computes in float32")
    return Real(low.graph.constant(array(tensor), name))


def _number(low: Lowering, value: Any) -> str:
    if isinstance(value, VALUES):
        return low.real(value)
    if isinstance(value, (int, float)):
        return low.graph.constant(np.float32(value), "number")
    raise _NoWayError(f"{type(value).__name__} among its arguments")


def _binary(kind: str, *, of_sizes: bool = False) -> Callable[..., Any]:
    def write(low: Lowering, name: str, shape: Shape, one: Any, other: Any) -> Any:
        if isinstance(one, Size) or isinstance(other, Size):
            if not of_sizes:
                raise _NoWayError("side lengths are known only when the file runs")
            return Size(low.graph.node(kind, [low.length(one), low.length(other)], name))
        return Real(low.graph.node(kind, [_number(low, one), _number(low, other)], name))

    return write


def _floor_division(low: Lowering, name: str, shape: Shape, one: Any, other: Any) -> Any:
    quotient = _binary("Div", of_sizes=True)(low, name, shape, one, other)
    return quotient if isinstance(quotient, Size) else Real(low.graph.node("Floor", [quotient.name], f"{name}.floor"))


def _unary(kind: str) -> Callable[..., Value]:
    def write(low: Lowering, name: str, shape: Shape, value: Value) -> Value:
        return Real(low.graph.node(kind, [low.real(value)], name))

    return write


def _same(low: Lowering, name: str, shape: Shape, value: Value, *_: Any, **__: Any) -> Value:
    return value


def _dropout(
    low: Lowering, name: str, shape: Shape, value: Value, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    if training and p > 0:
        raise _NoWayError("it drops in eval mode, too; pass training=self.training")
    return value


def _converted(low: Lowering, name: str, shape: Shape, value: Value, *to: Any, **options: Any) -> Value:
    if not all(each in (torch.float32, torch.device("cpu"), None) for each in (*to, *options.values())):
        raise _NoWayError("a file computes in float32, and has no devices")
    return value


def _relu(low: Lowering, name: str, shape: Shape, value: Value, inplace: bool = False) -> Value:
    return low.rectify(value, 0.0, np.inf)


def _relu6(low: Lowering, name: str, shape: Shape, value: Value, inplace: bool = False) -> Value:
    return low.rectify(value, 0.0, 6.0)


def _clamp(low: Lowering, name: str, shape: Shape, value: Value, min: Any = None, max: Any = None) -> Value:
    if not all(each is None or isinstance(each, (int, float)) for each in (min, max)):
        raise _NoWayError("bounds that are tensors")
    return low.rectify(value, -np.inf if min is None else float(min), np.inf if max is None else float(max))


def _hardtanh(
    low: Lowering, name: str, shape: Shape, value: Value, min_val: float = -1.0, max_val: float = 1.0,
    inplace: bool = False,
) -> Value:  # fmt: skip
    return low.rectify(value, float(min_val), float(max_val))


def _leaky(
    low: Lowering, name: str, shape: Shape, value: Value, negative_slope: float = 0.01, inplace: bool = False
) -> Value:
    return Real(low.graph.node("LeakyRelu", [low.real(value)], name, alpha=float(negative_slope)))


def _silu(low: Lowering, name: str, shape: Shape, value: Value, inplace: bool = False) -> Value:
    x = low.real(value)
    return Real(low.graph.node("Mul", [x, low.graph.node("Sigmoid", [x], f"{name}.gate")], name))


def _gelu(low: Lowering, name: str, shape: Shape, value: Value, approximate: str = "none") -> Value:
    return Real(low.graph.node("Gelu", [low.real(value)], name, approximate=approximate))


def _hardsigmoid(low: Lowering, name: str, shape: Shape, value: Value, inplace: bool = False) -> Value:
    return Real(low.graph.node("HardSigmoid", [low.real(value)], name, alpha=1 / 6, beta=0.5))


def _hardswish(low: Lowering, name: str, shape: Shape, value: Value, inplace: bool = False) -> Value:
    return Real(low.graph.node("HardSwish", [low.real(value)], name))


def _softmax(kind: str) -> Callable[..., Value]:
    def write(low: Lowering, name: str, shape: Shape, value: Value, dim: int, dtype: None = None, **_: Any) -> Value:
        if dtype not in (None, torch.float32):
            raise _NoWayError("a file computes in float32")
        return Real(low.graph.node(kind, [low.real(value)], name, axis=dim))

    return write


def _add(low: Lowering, name: str, shape: Shape, one: Any, other: Any) -> Any:
    if isinstance(one, VALUES) and isinstance(other, VALUES):
        return summed(low, name, one, other)
    return _binary("Add", of_sizes=True)(low, name, shape, one, other)


def _cat(low: Lowering, name: str, shape: Shape, tensors: Any, dim: int = 0) -> Value:
    return joined(low, name, tensors, dim)


def _flatten(low: Lowering, name: str, shape: Shape, value: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    return flattened(low, name, value, start_dim, end_dim, len(shape))


def _view(low: Lowering, name: str, shape: Shape, value: Value, *sides: Any) -> Value:
    sizes = list(sides[0]) if len(sides) == 1 and isinstance(sides[0], (tuple, list)) else list(sides)
    if not any(isinstance(side, Size) for side in sizes):
        target = low.integers(sizes, "shape")
    else:
        target = low.graph.node("Concat", [low.length(side) for side in sizes], f"{name}.shape", axis=0)
    return low.moved("Reshape", low.settled(value), name, [target])


def _permute(low: Lowering, name: str, shape: Shape, value: Value, *dims: Any) -> Value:
    order = list(dims[0]) if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else list(dims)
    return low.moved("Transpose", low.settled(value), name, perm=[each % len(shape) for each in order])


def _transpose(low: Lowering, name: str, shape: Shape, value: Value, dim0: int, dim1: int) -> Value:
    order = list(range(len(shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(low, name, shape, value, order)


def _unsqueeze(low: Lowering, name: str, shape: Shape, value: Value, dim: int) -> Value:
    return low.moved("Unsqueeze", low.settled(value), name, [low.integers([dim], "axes")])


def _squeeze(low: Lowering, name: str, shape: Shape, value: Value, dim: int) -> Value:
    return low.moved("Squeeze", low.settled(value), name, [low.integers(pair(dim)[:1], "axes")])


def _reduced(kind: str) -> Callable[..., Value]:
    def write(low: Lowering, name: str, shape: Shape, value: Value, dim: Any = None, keepdim: bool = False) -> Value:
        if dim is None:
            dim = list(range(len(shape)))
        axes = low.integers([each % len(shape) for each in (dim if isinstance(dim, (tuple, list)) else [dim])], "axes")
        return Real(low.graph.node(kind, [low.real(value), axes], name, keepdims=int(keepdim)))

    return write


def _batch_norm(
    low: Lowering, name: str, shape: Shape, value: Value, running_mean: Value, running_var: Value, weight: Value,
    bias: Value, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Value:  # fmt: skip
    if training:
        raise _NoWayError("statistics of the batch in eval mode")
    inputs = [low.real(each) for each in (value, weight, bias, running_mean, running_var)]
    return Real(low.graph.node("BatchNormalization", inputs, name, epsilon=float(eps)))


def _window(low: Lowering, options: dict[str, Any]) -> dict[str, Any]:
    return pooling(SimpleNamespace(**{"stride": None, "padding": 0, "ceil_mode": False} | options))


def _max_pool(
    low: Lowering, name: str, shape: Shape, value: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Value:  # fmt: skip
    if return_indices:
        raise _NoWayError("the places of the maxima")
    options = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    return low.moved("MaxPool", low.settled(value), name, dilations=pair(dilation), **_window(low, options))


def _average_pool(low: Lowering, name: str, shape: Shape, value: Value, kernel_size: Any, stride: Any = None,
                  padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True) -> Value:  # fmt: skip
    options = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    attributes = _window(low, options) | {"count_include_pad": int(count_include_pad)}
    return Real(low.graph.node("AveragePool", [low.real(value)], name, **attributes))


def _adaptive_average(low: Lowering, name: str, shape: Shape, value: Value, output_size: Any) -> Value:
    return adaptive(low, name, output_size, shape, value, largest=False)


def _adaptive_max(
    low: Lowering, name: str, shape: Shape, value: Value, output_size: Any, return_indices: bool = False
) -> Value:
    if return_indices:
        raise _NoWayError("the places of the maxima")
    return adaptive(low, name, output_size, shape, value, largest=True)


def _interpolate(low: Lowering, name: str, shape: Shape, value: Value, size: Any = None, scale_factor: Any = None,
                 mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: Any = None,
                 antialias: bool = False) -> Value:  # fmt: skip
    if antialias or recompute_scale_factor:
        raise _NoWayError("antialias and recompute_scale_factor")
    if scale_factor is not None:
        return resized(low, name, value, [float(each) for each in pair(scale_factor)], mode, bool(align_corners))
    return resized(low, name, value, pair(size), mode, bool(align_corners))


def _pad(
    low: Lowering, name: str, shape: Shape, x: Value, pad: Any, mode: str = "constant", value: Any = None
) -> Value:
    if len(pad) != 4 or value not in (0, None) or any(isinstance(side, Size) for side in pad):
        raise _NoWayError("padding of other than height and width, or by other than 0")
    left, right, top, bottom = pad
    return padded(low, name, x, [top, left, bottom, right], {"replicate": "edge"}.get(mode, mode))


def _matmul(low: Lowering, name: str, shape: Shape, one: Value, other: Value) -> Value:
    return Real(low.graph.node("MatMul", [low.real(one), low.real(other)], name))


def _linear(low: Lowering, name: str, shape: Shape, value: Value, weight: Value, bias: Value | None = None) -> Value:
    columns = low.graph.node("Transpose", [low.real(weight)], f"{name}.columns", perm=[1, 0])
    product = low.graph.node("MatMul", [low.real(value), columns], f"{name}.product")
    return Real(product if bias is None else low.graph.node("Add", [product, low.real(bias)], name))


def _chunk(low: Lowering, name: str, shape: Shape, value: Value, chunks: int, dim: int = 0) -> list[Value]:
    size = -(-shape[dim] // chunks)
    return _split(low, name, shape, value, size, dim)


def _split(low: Lowering, name: str, shape: Shape, value: Value, size: Any, dim: int = 0) -> list[Value]:
    sizes = list(size) if isinstance(size, (tuple, list)) else [size] * (shape[dim] // size) + [shape[dim] % size]
    sizes = [each for each in sizes if each]
    value = low.settled(value)
    names = [f"{name}.{part}" for part in range(len(sizes))]
    source = value.name if isinstance(value, Codes) else low.real(value)
    results = low.graph.nodes_of("Split", [source, low.integers(sizes, "sizes")], names, axis=dim)
    return [Codes(each, value.grid) if isinstance(value, Codes) else Real(each) for each in results]


def _getitem(low: Lowering, name: str, shape: Shape, value: Any, index: Any) -> Any:
    if not isinstance(value, VALUES):
        return value[index]
    index = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(each, slice) for each in index) or any(
        isinstance(bound, Size) for each in index for bound in (each.start, each.stop, each.step)
    ):
        raise _NoWayError("an index that is no slice of fixed bounds")
    cut = [(axis, *each.indices(shape[axis])) for axis, each in enumerate(index) if each != slice(None)]
    if not cut:
        return value
    axes, starts, ends, steps = zip(*cut, strict=True)
    corners = [low.integers(each, "corner") for each in (starts, ends, axes, steps)]
    return low.moved("Slice", low.settled(value), name, corners)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": _add, "iadd": _add,
    "sub": _binary("Sub", of_sizes=True), "isub": _binary("Sub", of_sizes=True),
    "mul": _binary("Mul", of_sizes=True), "imul": _binary("Mul", of_sizes=True),
    "truediv": _binary("Div"), "itruediv": _binary("Div"), "div": _binary("Div"), "true_divide": _binary("Div"),
    "floordiv": _floor_division, "ifloordiv": _floor_division, "pow": _binary("Pow"), "ipow": _binary("Pow"),
    "maximum": _binary("Max"), "minimum": _binary("Min"),
    "abs": _unary("Abs"), "neg": _unary("Neg"), "exp": _unary("Exp"), "sqrt": _unary("Sqrt"),
    "log": _unary("Log"), "reciprocal": _unary("Reciprocal"), "sigmoid": _unary("Sigmoid"), "tanh": _unary("Tanh"),
    "clone": _same, "contiguous": _same, "detach": _same, "to": _converted, "float": _same,
    "dropout": _dropout, "dropout1d": _dropout, "dropout2d": _dropout, "dropout3d": _dropout,
    "alpha_dropout": _dropout, "relu": _relu, "relu6": _relu6, "clamp": _clamp, "hardtanh": _hardtanh,
    "leaky_relu": _leaky, "silu": _silu, "gelu": _gelu, "hardsigmoid": _hardsigmoid, "hardswish": _hardswish,
    "softmax": _softmax("Softmax"), "log_softmax": _softmax("LogSoftmax"),
    "cat": _cat, "concat": _cat, "concatenate": _cat, "chunk": _chunk, "split": _split, "getitem": _getitem,
    "flatten": _flatten, "view": _view, "reshape": _view, "permute": _permute, "transpose": _transpose,
    "unsqueeze": _unsqueeze, "squeeze": _squeeze, "mean": _reduced("ReduceMean"),
    "sum": _reduced("ReduceSum"), "batch_norm": _batch_norm,
    "max_pool2d": _max_pool, "avg_pool2d": _average_pool, "adaptive_avg_pool2d": _adaptive_average,
    "adaptive_max_pool2d": _adaptive_max, "interpolate": _interpolate, "pad": _pad, "matmul": _matmul,
    "linear": _linear,
}  # fmt: skip
