"""Channels that are picked and put among constants, as shrunk networks do where neighbours kept others."""

from typing import Any

import numpy as np

from qprune.exporting.kernels import Kernel
from qprune.exporting.lowering import Lowering
from qprune.exporting.values import Codes, Grid, Real, Value
from qprune.exporting.weighted import in_integers
from qprune.layers import Align

FEW = 2**14  # multiplications for each pixel that a convolution may take in place of moving channels


def picked(low: Lowering, value: Value, align: Align, name: str, shape: tuple[int | None, ...]) -> Value:
    """Channels by number, and constants where there is none; in integers where the constants are among the numbers."""
    fill, axis = np.asarray(align.fill, np.float32), align.axis % len(shape)
    codes = constant_codes(value.grid, fill) if isinstance(value, Codes) else None
    if codes is None:
        value = Real(low.real(value))
    index, exists = np.asarray(align.index), np.asarray(align.index) >= 0
    if exists.all():
        return _gathered(low, value, index, name, axis)
    if isinstance(value, Codes) and len(shape) == 4 and axis == 1 and 0 < len(index) * (shape[1] or 0) <= FEW:
        return _convolved(low, value, align, name, shape[1])
    value = _gathered(low, value, index.clip(0), f"{name}.kept", axis)
    sides = [-1 if dim == axis else 1 for dim in range(len(shape))]
    constants = low.graph.constant((fill if codes is None else codes).reshape(sides), f"{name}.constants")
    there = low.graph.constant(exists.reshape(sides), f"{name}.exists")
    result = low.graph.node("Where", [there, low.name(value), constants], name)
    return Codes(result, value.grid) if isinstance(value, Codes) else Real(result)


def _gathered(low: Lowering, value: Value, index: Any, name: str, axis: int) -> Value:
    return low.moved("Gather", value, name, [low.integers(index.tolist(), "channels")], axis=axis)


def _convolved(low: Lowering, value: Codes, align: Align, name: str, channels: Any) -> Codes:
    """Integers put among constants by a convolution whose weights are 0 and 1: the same integers.

    Runtimes lay the channels of a pixel side by side for convolutions, and bring them back for whatever else moves
    channels about.
    """
    rows = np.zeros((len(align.index), channels, 1, 1), np.int8)
    for row, index in enumerate(align.index):
        rows[row, index] = index >= 0
    bias = np.asarray(align.fill, np.float32) if any(align.fill) else None
    kernel = Kernel(rows, np.ones(len(rows), np.float32), bias, {"strides": [1, 1], "pads": [0, 0, 0, 0]})
    return Codes(in_integers(low, f"{name}.picking", kernel, value).quantized(value.grid, name), value.grid)


def constant_codes(grid: Grid, numbers: Any) -> Any:
    """The integers of numbers on a grid, as uint8; None if any is not on it."""
    codes = np.asarray([grid.code(number) for number in numbers])
    exact = (codes - grid.zero_point).astype(np.float32) * grid.scale == numbers
    return codes.astype(np.uint8) if exact.all() else None
