import pytest
import torch
from torch.nn import functional as F

from qprune.data.resizing import fit


@pytest.mark.parametrize("size", [(3, 5), (12, 14), (7, 20), (6, 10)])
def test_labels_are_taken_from_the_nearest_pixel(size):
    labels = torch.arange(60, dtype=torch.uint8).view(6, 10)
    expected = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0]
    assert torch.equal(fit(labels, size), expected.byte())


def test_images_are_averaged_not_sampled():
    stripes = torch.zeros(3, 8, 8, dtype=torch.uint8)
    stripes[:, :, ::2] = 200
    assert abs(fit(stripes, (4, 4)).float() - 100).max() < 30
    assert fit(stripes, (4, 4)).dtype == torch.uint8


def test_an_image_and_its_labels_stay_in_place():
    labels = torch.zeros(40, 60, dtype=torch.uint8)
    labels[8:, 12:] = 1
    image = (labels * 200).expand(3, -1, -1).contiguous()
    assert torch.equal(fit(image, (10, 15))[0] > 100, fit(labels, (10, 15)) == 1)


def test_pictures_of_the_size_are_left_alone():
    picture = torch.zeros(3, 5, 7, dtype=torch.uint8)
    assert fit(picture, (5, 7)) is picture
