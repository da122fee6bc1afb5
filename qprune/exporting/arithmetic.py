"""Operations that compute with real numbers: of one tensor, of two, along dimensions, over windows."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from qprune.exporting.lowering import Lowering
from qprune.exporting.moving import Shape, pair
from qprune.exporting.no_way import NeverError, NoWayError
from qprune.exporting.values import Codes, Other, Product, Real, Size, Value

VALUES = (Real, Codes, Product, Other)
Writer = Callable[..., Any]


def number(low: Lowering, value: Any) -> str:
    """The tensor of an operand that may be a number."""
    if isinstance(value, VALUES):
        return low.real(value)
    if isinstance(value, (int, float)):
        return low.graph.constant(np.float32(value), "number")
    raise NoWayError("a side length among real numbers" if isinstance(value, Size) else f"a {type(value).__name__}")


def unary(kind: str, **options: Any) -> Writer:
    """One node of one tensor; its options, each with its default, are in the order in which a call gives them."""

    def write(low: Lowering, name: str, shape: Shape, value: Value, *given: Any, **named: Any) -> Value:
        told = dict(zip([*options][: len(given)], given, strict=True)) | named
        if unknown := told.keys() - options.keys():
            raise NoWayError(f"the option {', '.join(unknown)}")
        attributes = {key: type(usual)(told.get(key, usual)) for key, usual in options.items()}
        return Real(low.graph.node(kind, [low.real(value)], name, **attributes))

    return write


def binary(kind: str, of_sizes: str = "", swapped: bool = False) -> Writer:
    """One node of two tensors, or of a tensor and a number; of side lengths, too, by another node."""

    def write(low: Lowering, name: str, shape: Shape, one: Any, other: Any, *, alpha: float = 1) -> Any:
        one, other = (other, one) if swapped else (one, other)
        if isinstance(one, Size) or isinstance(other, Size):
            if not of_sizes:
                raise NoWayError("side lengths are known only when the file runs")
            return Size(low.graph.node(of_sizes, [low.length(one), low.length(other)], name))
        of = low.summand if kind == "Add" else low.real
        names = [of(each) if isinstance(each, VALUES) else number(low, each) for each in (one, other)]
        if alpha != 1:
            place = 0 if swapped else 1
            names[place] = low.graph.node("Mul", [names[place], number(low, alpha)], f"{name}.scaled")
        return Real(low.graph.node(kind, names, name))

    return write


def divided(low: Lowering, name: str, shape: Shape, one: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """A quotient, rounded down if so asked."""
    if isinstance(one, Size) or isinstance(other, Size):
        one, other = low.length(one), low.length(other)
        rest = low.graph.node("Mod", [one, other], f"{name}.rest")  # Div of integers rounds to 0, not down
        return Size(low.graph.node("Div", [low.graph.node("Sub", [one, rest], f"{name}.whole"), other], name))
    quotient = low.graph.node(
        "Div", [number(low, one), number(low, other)], f"{name}.quotient" if rounding_mode else name
    )
    if rounding_mode not in (None, "floor"):
        raise NoWayError(f'rounding_mode="{rounding_mode}"')
    return Real(quotient if rounding_mode is None else low.graph.node("Floor", [quotient], name))


def negative(low: Lowering, name: str, shape: Shape, value: Any) -> Any:
    """Numbers with the other sign; of a side length, too, as in ``-height % 32``."""
    if isinstance(value, Size):
        return Size(low.graph.node("Neg", [value.name], name))
    return unary("Neg")(low, name, shape, value)


def bounded(low: Lowering, name: str, shape: Shape, value: Value, min: Any = None, max: Any = None) -> Value:
    """Numbers between two bounds, which a quantizer behind it can do by itself."""
    if not all(each is None or isinstance(each, (int, float)) for each in (min, max)):
        raise NoWayError("bounds that are tensors")
    return low.rectify(value, -np.inf if min is None else float(min), np.inf if max is None else float(max))


def bounded_above(low: Lowering, name: str, shape: Shape, value: Value, max: Any) -> Value:
    """Numbers up to a bound."""
    return bounded(low, name, shape, value, None, max)


def hardtanh(low: Lowering, name: str, shape: Shape, value: Value, low_bound: Any = -1, high_bound: Any = 1) -> Value:
    """Numbers between two bounds; ReLU6 among others."""
    return bounded(low, name, shape, value, low_bound, high_bound)


def gated(low: Lowering, name: str, shape: Shape, value: Value) -> Value:
    """SiLU: x times its sigmoid."""
    x = low.real(value)
    return Real(low.graph.node("Mul", [x, low.graph.node("Sigmoid", [x], f"{name}.gate")], name))


def prelu(low: Lowering, name: str, shape: Shape, value: Value, slopes: Value) -> Value:
    """Leaky ReLU with a slope for each channel."""
    return Real(low.graph.node("PRelu", [low.real(value), low.real(slopes)], name))


def softmax(kind: str) -> Writer:
    """Softmax, or its logarithm."""

    def write(low: Lowering, name: str, shape: Shape, value: Value, dim: int, half_to_float: bool = False) -> Value:
        return Real(low.graph.node(kind, [low.real(value)], name, axis=dim))

    return write


def reduced(kind: str) -> Writer:
    """One number of many, along dimensions."""

    def write(low: Lowering, name: str, shape: Shape, value: Value, dim: Any = None, keepdim: bool = False,
              *, dtype: Any = None) -> Value:  # fmt: skip
        dims = list(range(len(shape))) if dim is None or dim == [] else pair(dim) if isinstance(dim, list) else [dim]
        dims = sorted({each % len(shape) for each in dims})
        if kind == "ReduceMean" and keepdim and len(shape) == 4 and dims == [2, 3]:
            return Real(low.graph.node("GlobalAveragePool", [low.real(value)], name))
        return Real(
            low.graph.node(kind, [low.real(value), low.integers(dims, "axes")], name, keepdims=int(bool(keepdim)))
        )

    return write


def multiplied(low: Lowering, name: str, shape: Shape, one: Value, other: Value) -> Value:
    """A product of matrices."""
    return Real(low.graph.node("MatMul", [low.real(one), low.real(other)], name))


def multiplied_and_added(
    low: Lowering, name: str, shape: Shape, bias: Value, one: Value, other: Value, *, beta: float = 1, alpha: float = 1
) -> Value:
    """A product of matrices and a bias."""
    product = multiplied(low, f"{name}.product", shape, one, other)
    if (alpha, beta) != (1, 1):
        raise NoWayError("factors other than 1")
    return Real(low.graph.node("Add", [low.real(product), low.real(bias)], name))


def convolved(
    low: Lowering, name: str, shape: Shape, value: Value, weight: Value, bias: Value | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], is_transposed: bool, output_padding: Sequence[int], groups: int,
) -> Value:  # fmt: skip
    """A convolution whose weight the network's own code hands over."""
    inputs = [low.real(each) for each in (value, weight, bias) if each is not None]
    options: dict[str, Any] = {"strides": list(stride), "pads": [*padding, *padding], "dilations": list(dilation)}
    if is_transposed:
        options["output_padding"] = list(output_padding)
    kind = "ConvTranspose" if is_transposed else "Conv"
    return Real(low.graph.node(kind, inputs, name, group=groups, **options))


def layer_normalized(
    low: Lowering, name: str, shape: Shape, value: Value, sizes: Sequence[int], weight: Value | None,
    bias: Value | None, eps: float,
) -> list[Value]:  # fmt: skip
    """A normalization over the last dimensions."""
    scale = low.graph.constant(np.ones(sizes, np.float32), "ones") if weight is None else low.real(weight)
    inputs = [low.real(value), scale, *([] if bias is None else [low.real(bias)])]
    options = {"axis": -len(sizes), "epsilon": float(eps)}
    return [Real(low.graph.node("LayerNormalization", inputs, name, **options))]


def max_pooled(
    low: Lowering, name: str, shape: Shape, value: Value, kernel: Any, stride: Any = (), padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False,
) -> list[Value]:  # fmt: skip
    """The largest of each window, in integers, too; its place is not known."""
    options = _window(kernel, stride, padding, ceil_mode) | {"dilations": pair(dilation)}
    return [low.moved("MaxPool", low.settled(value), name, **options)]


def average_pooled(
    low: Lowering, name: str, shape: Shape, value: Value, kernel: Any, stride: Any = (), padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor: int | None = None,
) -> Value:  # fmt: skip
    """The mean of each window."""
    whole = divisor is not None  # then the borders count, and the mean is made a sum again
    if whole and ceil_mode:
        raise NeverError("a divisor of its own with ceil_mode")
    options = _window(kernel, stride, padding, ceil_mode) | {"count_include_pad": int(count_include_pad or whole)}
    mean = low.graph.node("AveragePool", [low.real(value)], f"{name}.mean" if whole else name, **options)
    if divisor is None:
        return Real(mean)
    return Real(low.graph.node("Mul", [mean, number(low, prod(pair(kernel)) / divisor)], name))


def _window(kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> dict[str, Any]:
    sides = pair(padding)
    strides = pair(stride) if isinstance(stride, int) or stride else pair(kernel)
    return {"kernel_shape": pair(kernel), "strides": strides, "pads": [*sides, *sides], "ceil_mode": int(ceil_mode)}


def adaptive(kind: str) -> Writer:
    """Pool to a fixed size: globally, or with windows that fit the size of the example exactly."""

    def write(low: Lowering, name: str, shape: Shape, value: Value, size: Any) -> Value:
        sides = [given if side is None else side for side, given in zip(pair(size), shape[2:], strict=True)]
        if any(isinstance(side, Size) for side in sides):
            raise NoWayError("a size that is known only when the file runs")
        if sides == [1, 1]:
            return Real(low.graph.node(f"Global{kind}Pool", [low.real(value)], name))
        if any(given % side for given, side in zip(shape[2:], sides, strict=True)):
            raise NoWayError(f"{shape[2:]} is pooled to {tuple(sides)}, which no window of one size does")
        window = [given // side for given, side in zip(shape[2:], sides, strict=True)]
        return Real(low.graph.node(f"{kind}Pool", [low.real(value)], name, kernel_shape=window, strides=window))

    return write


def adaptive_max(low: Lowering, name: str, shape: Shape, value: Value, size: Any) -> list[Value]:
    """Pool to a fixed size by the largest; its place is not known."""
    return [adaptive("Max")(low, name, shape, value, size)]
