import numpy as np
import pytest

from qprune.data import NAMED, load_data
from qprune.data.canvas import Canvas, Dice, smooth_noise
from qprune.data.street import draw_street
from qprune.spec import DataSpec


def few(**options):
    return load_data(DataSpec("streets", train_images=11, **options))


def test_a_scene_is_a_function_of_its_place():
    scene = draw_street(0, "train", 3, 32, 48)
    again = draw_street(0, "train", 3, 32, 48)
    assert all((a == b).all() for a, b in zip(scene, again, strict=True))
    for other in ((1, "train", 3), (0, "val", 3), (0, "train", 4)):
        assert (draw_street(*other, 32, 48)[0] != scene[0]).mean() > 0.5


@pytest.mark.parametrize("size", [(5, 7), (64, 96), (33, 130), (120, 50)])
def test_scenes_have_any_size(size):
    image, labels = draw_street(0, "test", 2, *size)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (labels.shape, labels.dtype) == (size, np.uint8)


def test_a_scene_is_the_same_one_at_every_size():
    small, large = (draw_street(0, "train", 6, *size)[1] for size in ((64, 96), (192, 288)))
    assert (large[1::3, 1::3] == small).mean() > 0.95


def test_classes_lie_where_they_lie_in_a_street():
    labels = np.stack([draw_street(0, "train", i, 64, 96)[1] for i in range(30)])
    sky, building, road, pavement, _, car, sign = (np.argwhere(labels == i)[:, 1] for i in range(7))
    assert sky.mean() < building.mean() < car.mean() < road.mean()
    assert sign.mean() < car.mean()
    assert pavement.min() > 64 * 0.3
    assert labels.max() == len(NAMED["streets"].classes) - 1


def test_every_class_is_there_to_be_learnt():
    labels = np.stack([draw_street(0, "train", i, 64, 96)[1] for i in range(30)])
    assert (np.bincount(labels.ravel(), minlength=7) / labels.size > 0.004).all()


def test_stated_mean_and_std_are_those_of_the_training_images():
    pixels = np.stack([draw_street(0, "train", i, 64, 96)[0] for i in range(0, 600, 6)]).reshape(-1, 3) / 255
    assert abs(pixels.mean(0) - NAMED["streets"].mean).max() < 0.02
    assert abs(pixels.std(0) - NAMED["streets"].std).max() < 0.02


def test_streets_come_with_their_splits():
    splits = few(size=(16, 24))
    assert splits.info.sizes == {"train": 11, "val": 100, "test": 200}
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [11, 100, 200]
    assert splits.train[0][0].shape == splits.info.shape == (3, 16, 24)


def test_dice_are_even_and_never_change():
    drawn = Dice(3).grid(5000)
    assert abs(drawn.mean() - 0.5) < 0.02
    assert abs(drawn.var() - 1 / 12) < 0.005
    assert Dice(3, 5).grid(2).tolist() == Dice(3, 5).grid(2).tolist() != Dice(5, 3).grid(2).tolist()


def test_smooth_noise_changes_little_from_pixel_to_pixel():
    noise = smooth_noise(Dice(3), (60, 90), cells=4)
    assert noise.min() >= 0
    assert noise.max() < 1
    assert abs(np.diff(noise, axis=0)).max() < 0.1


def test_a_part_of_a_canvas_paints_on_the_whole():
    canvas = Canvas(20, 30, horizon=0.5, ahead=0.5)
    part = canvas.box(left=-1, right=1, top=1.5, near=10, far=10)
    part.paint(part.u > 0, 4, (0.1, 0.2, 0.3), 10)
    assert (canvas.labels == 4).sum() == (part.u > 0).sum() > 0
    assert (canvas.colours[canvas.labels == 4] == (0.1, 0.2, 0.3)).all()
