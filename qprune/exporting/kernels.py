"""The numbers of a convolution or linear layer as runtimes take them; a transposed one becomes an ordinary one."""

from typing import Any

import numpy as np
from attrs import evolve, frozen
from torch import nn

from qprune.exporting.values import array
from qprune.layers import CompressedWeight
from qprune.numerics import SMALLEST_STEP
from qprune.shrinking import rows

LARGEST_BIAS = 2**30  # of an int32, with room for the sum


@frozen(eq=False)
class Kernel:
    """The numbers of one layer."""

    rows: Any  # (out, in / groups, ...), int8 or float32
    scale: Any  # float32 (out,), what an integer stands for; None if the weights are no integers around 0
    bias: Any  # float32 (out,), or None
    attributes: dict[str, Any]  # of the ONNX node; a linear layer has none
    block: int = 1  # the outputs are those of block * block positions, to be spread out; 1 if of one
    cut: tuple[int, int] = (0, 0)  # how many rows and columns are too many then

    def with_room(self, step: Any, largest: int) -> "Kernel":
        """Give rows without a weight a scale with which their bias is an integer of at most half ``largest``."""
        if self.bias is None:
            return self
        empty = ~self.rows.reshape(len(self.rows), -1).any(1)
        needed = np.abs(self.bias) / (step * np.float32(largest / 2))
        return evolve(self, scale=np.where(empty, np.maximum(self.scale, needed), self.scale).astype(np.float32))


def kernel_of(layer: Any) -> Kernel | None:
    """The numbers of a layer, masks and quantizers applied; None for a transposed convolution that cannot be one."""
    weights, scale, bias = _numbers(layer)
    if isinstance(layer, nn.Linear):
        return Kernel(weights, scale, bias, {})
    if isinstance(layer, nn.ConvTranspose2d):
        return _ordinary(layer, weights, scale, bias)
    attributes = {"strides": list(layer.stride), "dilations": list(layer.dilation), "group": layer.groups}
    return Kernel(weights, scale, bias, {**attributes, "pads": _pads(layer)})


def of_each_channel(scale: Any, shift: Any, step: Any) -> Kernel:
    """A normalization as a convolution of each channel alone.

    Its weights are the largest integers, so that nothing of them is rounded; smaller ones where the shift is out of
    proportion, so that its integer has room.
    """
    steps = np.maximum(np.abs(scale) / 127, np.abs(shift) / (step * np.float32(LARGEST_BIAS / 2)))
    steps = np.maximum(steps, SMALLEST_STEP).astype(np.float32)
    integers = np.rint(scale / steps).astype(np.int8).reshape(-1, 1, 1, 1)
    attributes = {"strides": [1, 1], "dilations": [1, 1], "group": len(integers), "pads": [0, 0, 0, 0]}
    return Kernel(integers, steps, shift, attributes)


def _numbers(layer: Any) -> tuple[Any, Any, Any]:
    if not isinstance(layer, CompressedWeight):
        return array(rows(layer, layer.weight)), None, None if layer.bias is None else array(layer.bias)
    weight, bias = layer._weight_and_bias()
    quant = layer.weight_quant
    if quant is not None and bool(quant.active) and quant.symmetric:
        integers = array(rows(layer, layer.int_weight()[0]))
        scale: Any = np.broadcast_to(array(quant.scale), (len(integers),))
    else:
        integers, scale = array(rows(layer, weight)), None
    return integers, scale, None if bias is None else array(bias)


def _pads(layer: Any) -> list[int]:
    pads = layer._reversed_padding_repeated_twice  # from the last dimension, before and behind side by side
    if layer.padding == "valid" or layer.padding_mode != "zeros":
        return [0] * len(pads)
    return [*pads[-2::-2], *pads[::-2]]


def _ordinary(layer: Any, weights: Any, scale: Any, bias: Any) -> Kernel | None:
    """A transposed convolution as a convolution that makes ``stride * stride`` positions at once.

    Output position ``n = stride * a + b`` reads input position ``a + shift - j`` by the tap ``phase + stride * j``,
    where ``shift, phase = divmod(b + padding, stride)``: for each of the values of b that is a convolution over a. The
    sums stay the same sums, and runtimes have integer kernels for them.
    """
    stride = layer.stride[0]
    if layer.groups != 1 or layer.stride[0] != layer.stride[1] or tuple(layer.dilation) != (1, 1):
        return None
    sizes = zip(layer.kernel_size, layer.padding, layer.output_padding, strict=True)
    down, across = (_side(kernel, stride, padding, extra) for kernel, padding, extra in sizes)
    if min(*down[2:4], *across[2:4]) < 0:
        return None
    (vertical, tall, top, bottom, below), (horizontal, wide, left, right, beside) = down, across
    out, into = weights.shape[:2]
    blocks = np.zeros((stride, stride, out, into, tall, wide), weights.dtype)
    for b, c in np.ndindex(stride, stride):
        for (place, tap), (spot, other) in ((v, h) for v in vertical[b] for h in horizontal[c]):
            blocks[b, c, :, :, place, spot] = weights[:, :, tap, other]
    times = stride * stride
    return Kernel(
        blocks.reshape(-1, into, tall, wide),
        None if scale is None else np.tile(scale, times),
        None if bias is None else np.tile(bias, times),
        {"strides": [1, 1], "dilations": [1, 1], "group": 1, "pads": [top, left, bottom, right]},
        stride,
        (below, beside),
    )


def _side(kernel: int, stride: int, padding: int, extra: int) -> tuple[list[list[tuple[int, int]]], int, int, int, int]:
    """One dimension of `_ordinary`: for each b the places of its taps; the size, both paddings, what is too much."""
    taps: list[list[tuple[int, int]]] = []
    for b in range(stride):
        shift, phase = divmod(b + padding, stride)
        taps.append([(shift - j, phase + stride * j) for j in range(-(-max(kernel - phase, 0) // stride))])
    offsets = [offset for each in taps for offset, _ in each]
    first, last = min(offsets), max(offsets)
    more = kernel - 2 * padding + extra - stride  # L inputs give stride * L + more outputs
    blocks = -(-more // stride)
    places = [[(offset - first, tap) for offset, tap in each] for each in taps]
    return places, last - first + 1, -first, last + blocks, stride * blocks - more
