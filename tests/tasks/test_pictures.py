import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import normalize, to_dtype

from qprune.tasks import View, overlay, side_by_side, to_pixels, write_png

PALETTE = ((128, 64, 128), (70, 70, 70), (0, 0, 230))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_pixels_are_those_that_were_normalized():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    images = normalize(to_dtype(pixels, torch.float32, scale=True), MEAN, STD)
    assert torch.equal(to_pixels(images, MEAN, STD), pixels)
    assert torch.equal(to_pixels(images[0], MEAN, STD), pixels[0])


def test_values_beyond_the_range_are_cut_off():
    assert to_pixels(torch.tensor([-3.0, 3.0]).expand(3, 1, 2), (0.5,), (0.5,))[0].tolist() == [[0, 255]]


def test_grey_images_become_grey_pictures():
    pixels = to_pixels(torch.rand(2, 1, 5, 7), (0.0,), (1.0,))
    assert pixels.shape == (2, 3, 5, 7)
    assert torch.equal(pixels[:, 0], pixels[:, 2])


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [100, 100, 100]), (0.25, [75, 75, 132]), (1.0, [0, 0, 230])])
def test_overlay_mixes_colour_and_picture(alpha, expected):
    pixels = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    assert overlay(pixels, torch.tensor([[2]]), PALETTE, alpha)[:, 0, 0].tolist() == expected


def test_pictures_are_joined_left_to_right():
    first, second = torch.zeros(3, 5, 7, dtype=torch.uint8), torch.ones(3, 5, 2, dtype=torch.uint8)
    joined = side_by_side(first, second)
    assert joined.shape == (3, 5, 9)
    assert joined[0, 0].tolist() == [0] * 7 + [1] * 2


def test_pictures_of_different_height_are_refused():
    with pytest.raises(ValueError, match=r"^pictures side by side must have one height; received 5, 6$"):
        side_by_side(torch.zeros(3, 5, 7), torch.zeros(3, 6, 7))


def test_a_view_shows_images_in_minus_1_to_1_by_default():
    view = View()
    assert to_pixels(torch.tensor([-1.0, 1.0]).expand(3, 1, 2), view.mean, view.std)[1].tolist() == [[0, 255]]


def test_labels_are_written_as_values_that_show_their_colours(tmp_path):
    labels = torch.tensor([[0, 1, 2], [2, 1, 0]])
    write_png(tmp_path / "labels.png", labels, PALETTE)
    with Image.open(tmp_path / "labels.png") as image:
        assert torch.equal(torch.from_numpy(np.array(image)).long(), labels)
        assert image.convert("RGB").getpixel((1, 0)) == tuple(PALETTE[1])


def test_pictures_are_written_as_they_are(tmp_path):
    picture = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    write_png(tmp_path / "picture.png", picture)
    with Image.open(tmp_path / "picture.png") as image:
        assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1), picture)
