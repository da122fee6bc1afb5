"""What stands in a drawn street: trees, signs and cars, each painted upright at its place."""

from collections.abc import Callable

import numpy as np

from qprune.data.canvas import CAR, EYE, PAVEMENT, ROAD, SIGN, TREE, Canvas, Dice, Floats, smooth_noise

Thing = Callable[[Canvas, Dice, float, float], None]
_SIGNS = ((0.75, 0.10, 0.10), (0.12, 0.25, 0.70), (0.92, 0.75, 0.10), (0.10, 0.45, 0.20))


def place_things(dice: Dice, half: float, kerb: float) -> list[tuple[float, float, Thing]]:
    """Distance, place across and kind of all that stands about.

    Args:
        dice: decide what stands where.
        half: of the road, in metres.
        kerb: from the middle of the road to the houses, in metres.

    Example:
        >>> for z, x, thing in place_things(dice, half=4.0, kerb=6.0):
        ...     thing(canvas, dice, x, z)
    """
    rows = (
        (_tree, 0.22, (half + kerb) / 2),
        (_sign, 0.35, half + 0.5),
        (_car, 0.4, half - 1.0),  # parked
        (_car, 0.25, half * 0.42),  # driving
    )
    places = ((side * x, z, kind, chance) for side in (-1, 1) for kind, chance, x in rows for z in range(6, 62, 8))
    return [(z + dice.between(0, 3), x, kind) for x, z, kind, chance in places if dice.one() < chance]


def _tree(canvas: Canvas, dice: Dice, x0: float, z: float) -> None:
    canvas = canvas.box(x0 - 2.5, x0 + 2.5, 10, z, z)
    x, y = canvas.at(z)
    x, height = x - x0, dice.between(3.5, 7)
    trunk = (np.abs(x) < max(0.13, 0.6 * canvas.pixel * z)) & (y > 0) & (y < height)
    ragged = 0.5 + smooth_noise(dice, x.shape, cells=6)
    crown = (x / dice.between(1.2, 2.0)) ** 2 + ((y - height) / dice.between(1.4, 2.4)) ** 2 < ragged
    leaves = dice.colour(0.2, 0.34, 0) * (0.85, 1.2, 0.45)
    canvas.paint(trunk, TREE, (0.25, 0.18, 0.12), z)
    canvas.paint(crown, TREE, leaves * (0.55 + 0.9 * smooth_noise(dice, x.shape, cells=9)[..., None]), z)


def _sign(canvas: Canvas, dice: Dice, x0: float, z: float) -> None:
    canvas = canvas.box(x0 - 0.6, x0 + 0.6, 3.5, z, z)
    x, y = canvas.at(z)
    x, height, radius = x - x0, dice.between(2.1, 2.9), dice.between(0.35, 0.5)
    post = (np.abs(x) < max(0.05, 0.5 * canvas.pixel * z)) & (y > 0) & (y < height)
    shape = int(dice.between(0, 3))
    far = (np.hypot(x, y - height), np.maximum(np.abs(x), np.abs(y - height)), np.abs(x) + np.abs(y - height))[shape]
    canvas.paint(post, SIGN, (0.45, 0.45, 0.47), z)
    canvas.paint(far < radius, SIGN, (0.93, 0.93, 0.93), z)
    canvas.tint(far < 0.8 * radius, _SIGNS[int(dice.between(0, 4))])


def _car(canvas: Canvas, dice: Dice, x0: float, z: float) -> None:
    canvas = canvas.box(x0 - 1.2, x0 + 1.2, 2, z - 0.4, z + 4.2)
    colour = dice.colour(0.1, 0.85, 0.5 * dice.one())
    wide, roof = dice.between(0.82, 0.95), dice.between(1.4, 1.8)
    ground = EYE / np.maximum(canvas.v, 1e-6)
    below = (np.abs(canvas.u * ground - x0) < wide + 0.15) & (ground > z - 0.4) & (ground < z + 4.2) & (canvas.v > 0)
    canvas.tint(below & np.isin(canvas.labels, (ROAD, PAVEMENT)), (0.09, 0.09, 0.10))
    _car_side(canvas, x0 - np.sign(x0) * wide, z, roof, colour)
    x, y = canvas.at(z)
    x = np.abs(x - x0)
    body = (x < wide) & (y > 0.3) & (y < 0.95)
    cabin = (x < wide - 0.28 * (y - 0.9)) & (y >= 0.95) & (y < roof)
    canvas.paint(body | cabin, CAR, colour, z)
    canvas.tint(cabin & (x < wide - 0.15 - 0.28 * (y - 0.9)) & (y < roof - 0.12), (0.10, 0.13, 0.17))
    canvas.tint(body & (y < 0.45), colour * 0.5)
    lamp = (0.75, 0.08, 0.06) if x0 > 0 else (0.98, 0.96, 0.85)  # we drive on the right
    canvas.tint(body & (x > wide - 0.35) & (np.abs(y - 0.75) < 0.13), lamp)
    canvas.paint((np.abs(x - wide + 0.15) < 0.13) & (y > 0) & (y <= 0.3), CAR, (0.05, 0.05, 0.05), z)


def _car_side(canvas: Canvas, x: float, z: float, roof: float, colour: Floats) -> None:
    with np.errstate(divide="ignore"):
        along = np.where(canvas.u * x > 0, x / canvas.u, 1e4)
    y, back = EYE - canvas.v * along, along - z
    side = (back > 0) & (back < 4.2)
    cabin = side & (y >= 0.95) & (y < roof) & (back > 0.3) & (back < 3.0)
    wheels = side & (y > 0) & (y <= 0.55) & (np.abs(np.abs(back - 2.1) - 1.3) < 0.33)
    canvas.paint(side & (y > 0.3) & (y < 0.95) | cabin, CAR, colour * 0.75, along)
    canvas.tint(cabin & (y < roof - 0.12), (0.12, 0.15, 0.19))
    canvas.paint(wheels, CAR, (0.05, 0.05, 0.05), along)
