"""One drawn street: sky, two rows of buildings, road and pavement, then trees, cars and signs from far to near."""

import numpy as np

from qprune.data.canvas import BUILDING, CAR, EYE, PAVEMENT, ROAD, SIGN, SKY, TREE, Canvas, Dice, Floats, smooth_noise
from qprune.data.seeds import STREET

FAR = 90.0  # metres to where the street ends
_PARTS = ("train", "val", "test")
_SIGNS = ((0.75, 0.10, 0.10), (0.12, 0.25, 0.70), (0.92, 0.75, 0.10), (0.10, 0.45, 0.20))


def draw_street(seed: int, split: str, index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One street scene, a function of the arguments alone: its image (H, W, 3) and the class of every pixel, uint8."""
    dice = Dice(STREET, seed, _PARTS.index(split), index)
    canvas = Canvas(height, width, horizon=dice.between(0.36, 0.5), ahead=dice.between(0.35, 0.65))
    half = dice.between(3.4, 5.0)  # of the road, in metres
    kerb = half + dice.between(1.4, 3.2)
    horizon = _sky(canvas, dice)
    _street_end(canvas, dice)
    for side in (-1, 1):
        _facades(canvas, dice, side * kerb, dice.between(0.6, 1.1))
    _ground(canvas, dice, half, kerb)
    _things(canvas, dice, half, kerb)
    return _developed(canvas, dice, horizon), canvas.labels


def _sky(canvas: Canvas, dice: Dice) -> Floats:
    grey = dice.one() ** 2  # mostly blue, sometimes overcast
    top = (1 - grey) * np.array([0.30, 0.50, 0.85]) + grey * 0.72
    horizon = (1 - grey) * np.array([0.78, 0.86, 0.95]) + grey * 0.85
    rise = np.clip(-canvas.v / 0.35, 0, 1)[..., None]
    cloud = np.clip(2.5 * smooth_noise(dice, canvas.labels.shape, cells=5) - 1.3, 0, 0.8)[..., None]
    canvas.paint(canvas.v < 1, SKY, (horizon * (1 - rise) + top * rise) * (1 - cloud) + 0.95 * cloud, 1e4)
    return horizon


def _street_end(canvas: Canvas, dice: Dice) -> None:
    for x in range(-80, 80, 16):
        block = canvas.box(x, x + 16, dice.between(4, 16), FAR, FAR)
        everywhere = np.ones(block.labels.shape, bool)
        if dice.one() < 0.4:
            block.paint(everywhere, TREE, dice.colour(0.2, 0.3, 0) * (0.9, 1.2, 0.6), FAR)
        else:
            block.paint(everywhere, BUILDING, dice.colour(0.3, 0.6, 0.1), FAR)


def _facades(canvas: Canvas, dice: Dice, x: float, light: float) -> None:
    start = dice.between(2, 6)
    while start < FAR:
        end = start + dice.between(7, 18)
        ends = sorted((x / start, x / min(end, FAR)))
        part = canvas.part((ends[0], ends[1]), (-10, EYE / start))
        front = _hedge if dice.one() < 0.15 else _house
        front(part, dice, x / part.u, light)
        start = end


def _hedge(canvas: Canvas, dice: Dice, z: Floats, light: float) -> None:
    top = dice.between(1.5, 5) + smooth_noise(dice, z.shape, cells=9)
    y = EYE - canvas.v * z
    canvas.paint((y >= 0) & (y < top), TREE, dice.colour(0.18, 0.3, 0) * (0.8, 1.2, 0.5) * light, z)


def _house(canvas: Canvas, dice: Dice, z: Floats, light: float) -> None:
    y, colour = EYE - canvas.v * z, dice.colour(0.35, 0.75, 0.25) * light
    wall = (y >= 0) & (y < dice.between(5, 17))
    storey, bay = y % dice.between(2.7, 3.6), z % dice.between(2.2, 4)
    window = (storey > 1.1) & (storey < 2.4) & (bay > 0.7) & (bay < 1.7)
    canvas.paint(wall, BUILDING, colour, z)
    canvas.tint(wall & window, dice.colour(0.12, 0.35, 0.08) * (1, 1.05, 1.2))
    canvas.tint(wall & (y < 0.5), colour * 0.6)


def _ground(canvas: Canvas, dice: Dice, half: float, kerb: float) -> None:
    z = EYE / np.maximum(canvas.v, 1e-6)
    x = canvas.u * z
    ground = (canvas.v > EYE / FAR) & (np.abs(x) < kerb)
    asphalt = dice.colour(0.26, 0.42, 0.03) * (0.9 + 0.2 * smooth_noise(dice, z.shape, cells=8)[..., None])
    canvas.paint(ground, PAVEMENT, dice.colour(0.48, 0.66, 0.06), z)
    canvas.tint(ground & (z % 1.5 < 0.12) & (z < 20), dice.colour(0.4, 0.5, 0.03))
    canvas.paint(ground & (np.abs(x) < half), ROAD, asphalt, z)
    canvas.tint(ground & (np.abs(np.abs(x) - half) < 0.12), (0.7, 0.7, 0.68))
    thick = np.maximum(0.09, 0.6 * canvas.pixel * z)
    dashes = (z + dice.between(0, 8)) % 8 < 4
    canvas.tint(ground & dashes & (np.abs(x) < thick), (0.88, 0.88, 0.82))


def _things(canvas: Canvas, dice: Dice, half: float, kerb: float) -> None:
    """Trees, signs and cars, each painted upright at its place; ``half`` of the road and ``kerb`` in metres."""
    rows = (
        (_tree, 0.22, (half + kerb) / 2),
        (_sign, 0.35, half + 0.5),
        (_car, 0.4, half - 1.0),  # parked
        (_car, 0.25, half * 0.42),  # driving
    )
    places = ((side * x, z, paint, chance) for side in (-1, 1) for paint, chance, x in rows for z in range(6, 62, 8))
    placed = [(z + dice.between(0, 3), x, paint) for x, z, paint, chance in places if dice.one() < chance]
    for z, x, paint in sorted(placed, key=lambda thing: -thing[0]):
        paint(canvas, dice, x, z)


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


def _developed(canvas: Canvas, dice: Dice, horizon: Floats) -> np.ndarray:
    """Light, haze, texture, a soft lens and a noisy sensor."""
    shape, solid = canvas.labels.shape, (canvas.labels != SKY)[..., None]
    texture = 0.88 + 0.16 * smooth_noise(dice, shape, cells=24) + 0.08 * dice.grid(*shape)
    haze = 1 - np.exp(-canvas.depth / dice.between(90, 400))[..., None]
    light = dice.between(0.65, 1.15) * (1 + 0.16 * (dice.grid(3) - 0.5))
    colours = np.where(solid, canvas.colours * texture[..., None] * (1 - haze) + horizon * haze, canvas.colours) * light
    padded = np.pad(colours, ((1, 1), (1, 1), (0, 0)), mode="edge")
    soft = 0.6 * colours + 0.1 * (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:])
    noise = dice.between(0.01, 0.05) * (dice.grid(*shape, 3) + dice.grid(*shape, 3) - 1)
    return np.round(np.clip(soft + noise, 0, 1) * 255).astype(np.uint8)
