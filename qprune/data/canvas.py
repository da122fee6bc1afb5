"""A canvas seen in perspective, and the dice that decide what is painted on it."""

import math
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qprune.data.seeds import mix

Floats = NDArray[np.float64]
Where = NDArray[np.bool_]
SKY, BUILDING, ROAD, PAVEMENT, TREE, CAR, SIGN = range(7)
EYE = 1.5  # metres above the road


class Dice:
    """Numbers in [0, 1) as a function of their seed, some whole numbers, and of how many were drawn before."""

    def __init__(self, *numbers: int) -> None:
        self.key = int(mix(*numbers)[0])
        self.drawn = 0
        self.stock: list[float] = []  # one hash of many places takes hardly longer than one of one

    def grid(self, *shape: int) -> Floats:
        """An array of numbers in [0, 1)."""
        self.drawn += 1
        whole = mix(self.key, self.drawn, np.arange(math.prod(shape)))
        return (whole >> np.uint64(11)).reshape(shape).astype(np.float64) * 2.0**-53

    def one(self) -> float:
        """A number in [0, 1)."""
        self.stock = self.stock or self.grid(256).tolist()
        return self.stock.pop()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.one()

    def colour(self, low: float, high: float, tint: float) -> Floats:
        """A colour of that brightness whose channels differ by up to ``tint``."""
        grey = self.between(low, high)
        return np.array([grey + tint * (self.one() - 0.5) for _ in range(3)])


def smooth_noise(dice: Dice, shape: tuple[int, ...], cells: int) -> Floats:
    """Noise in [0, 1) that changes over ``1 / cells`` of the height: random corners, linear between them."""
    height, width = shape
    across = max(1, round(cells * width / max(1, height)))
    corners = dice.grid(cells + 1, across + 1)
    rows, columns = np.linspace(0, cells, height, endpoint=False), np.linspace(0, across, width, endpoint=False)
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None], columns - left
    upper = corners[top][:, left] * (1 - right) + corners[top][:, left + 1] * right
    lower = corners[top + 1][:, left] * (1 - right) + corners[top + 1][:, left + 1] * right
    return upper * (1 - down) + lower * down


class Canvas:
    """Colours and labels of one image, and where each pixel looks.

    Axes in metres: ``x`` to the right of the camera, ``y`` up from the road, ``z`` ahead. A pixel at ``(u, v)`` from
    the vanishing point sees ``x = u z`` and ``y = EYE - v z``, with ``u`` and ``v`` in units of the focal length. That
    point is at ``ahead`` of the width and ``horizon`` of the height, both shares of the ``width`` x ``height`` pixels.
    """

    def __init__(self, height: int, width: int, horizon: float, ahead: float) -> None:
        focal = 0.9 * max(width, 1.5 * height)
        self.pixel = 1 / focal
        self.u = np.broadcast_to((np.arange(width) + 0.5 - ahead * width) / focal, (height, width))
        self.v = np.broadcast_to(((np.arange(height) + 0.5 - horizon * height) / focal)[:, None], (height, width))
        self.colours = np.zeros((height, width, 3))
        self.labels = np.zeros((height, width), np.uint8)
        self.depth = np.full((height, width), 1e4)

    def part(self, u: tuple[float, float], v: tuple[float, float]) -> "Canvas":
        """The pixels between two bounds each way, as a canvas that paints on this one."""
        rows, columns = (slice(*np.searchsorted(line, bounds)) for line, bounds in ((self.v[:, 0], v), (self.u[0], u)))
        part = copy(self)
        for name in ("u", "v", "colours", "labels", "depth"):
            setattr(part, name, getattr(self, name)[rows, columns])
        return part

    def box(self, left: float, right: float, top: float, near: float, far: float) -> "Canvas":
        """The part that shows a box on the ground; metres."""
        u = [x / z for x in (left, right) for z in (near, far)]
        return self.part((min(u), max(u)), (min((EYE - top) / near, (EYE - top) / far), EYE / near))

    def paint(self, where: Where, label: int, colour: Any, z: Any) -> None:
        """Paint pixels; ``colour`` is one colour or one per pixel, ``z`` one distance or one per pixel."""
        self.tint(where, colour)
        self.labels[where] = label
        self.depth[where] = _at(where, z, 2)

    def tint(self, where: Where, colour: Any) -> None:
        """Paint pixels that stay what they are: markings, windows, shadows."""
        self.colours[where] = _at(where, colour, 3)

    def at(self, z: float) -> tuple[Floats, Floats]:
        """``(x, y)`` of every pixel on the upright plane at distance ``z``."""
        return self.u * z, EYE - self.v * z


def _at(where: Where, value: Any, axes: int) -> Any:
    return value[where] if np.ndim(value) == axes else value
