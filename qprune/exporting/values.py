"""The forms of a tensor in the file: real numbers, integers on a grid, or sums that are still integers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from qprune.layers import FakeQuant

TOP = 255  # of uint8, in which activations are held


@frozen(eq=False)
class Grid:
    """The grid of a quantizer whose integers are uint8."""

    scale: np.float32  # float32, the step size
    zero_point: int  # the integer that stands for 0
    low: int  # smallest integer
    high: int  # largest integer

    def like(self, other: "Grid") -> bool:
        """Whether equal integers are equal numbers."""
        return self.scale == other.scale and self.zero_point == other.zero_point

    def code(self, number: float) -> int:
        """The integer of a number, between ``low`` and ``high``."""
        steps = np.rint(np.float32(number) / self.scale) if np.isfinite(number) else number
        return int(min(max(steps + self.zero_point, self.low), self.high))


def grid_of(quant: FakeQuant) -> Grid | None:
    """The grid of a quantizer with one range; None if it has several, or one without 0, which uint8 cannot hold."""
    low, high = quant.code_bounds
    shift = 2**7 if quant.symmetric else 0  # integers around 0 are held around 128
    if quant.channels is not None or not 0 <= int(quant.zero_point) + shift <= TOP:
        return None
    return Grid(np.float32(quant.scale.item()), int(quant.zero_point) + shift, low + shift, high + shift)


@frozen(eq=False)
class Real:
    """Real numbers."""

    name: str  # of the float tensor
    # what is smaller counts as this; a rectifier that was not written yet, because a quantizer may do it
    floor: float = -np.inf
    ceiling: float = np.inf  # what is larger counts as this


@frozen(eq=False)
class Codes:
    """Integers on a grid."""

    name: str  # of the uint8 tensor
    grid: Grid  # what they stand for


@frozen(eq=False)
class Other:
    """Numbers that are not float32: places, truth values. Only what torch's exporter writes reads them."""

    name: str  # of the tensor
    dtype: torch.dtype


@frozen(eq=False)
class Product:
    """The integer sums of a layer, not written yet: their form depends on the layers that read them."""

    # writes it for a quantizer's grid; the runtime keeps to integers throughout
    quantized: Callable[[Grid, str], str] = field(repr=False)
    real: Callable[[], str] = field(repr=False)  # writes it as real numbers, out of integer sums
    floor: float = -np.inf  # as for `Real`
    ceiling: float = np.inf  # as for `Real`


@frozen(eq=False)
class Size:
    """Side lengths that are known when the file runs."""

    name: str  # of an int64 tensor of one dimension


Value = Real | Codes | Product | Other


def array(tensor: Tensor) -> Any:
    """A tensor's values for numpy."""
    return tensor.detach().cpu().numpy()
