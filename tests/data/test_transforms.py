import pytest
import torch
from torchvision import tv_tensors

from qprune.data.transforms import RandomGamma, RandomTranslate


def pair():
    image = tv_tensors.Image(torch.arange(3 * 8 * 9, dtype=torch.uint8).view(3, 8, 9))
    return image, tv_tensors.Mask(image[0])


def shifted(image, labels, across, down):
    """Mirrored and void borders by numpy-like indexing, which is slow and plain."""
    moved, void = torch.empty_like(image), torch.empty_like(labels)
    height, width = labels.shape
    for i in range(height):
        for j in range(width):
            y, x = i - down, j - across
            inside = 0 <= y < height and 0 <= x < width
            y, x = abs(y), abs(x)
            y, x = min(y, 2 * (height - 1) - y), min(x, 2 * (width - 1) - x)
            moved[:, i, j] = image[:, y, x]
            void[i, j] = labels[y, x] if inside else 255
    return moved, void


def test_images_are_mirrored_and_labels_become_void():
    translate, seen = RandomTranslate(pixels=[2, 5]), set()
    image, labels = pair()
    for _ in range(200):
        params = translate.make_params([image, labels])
        seen.add((params["across"], params["down"]))
        expected = shifted(image, labels, **params)
        made = [translate.transform(picture, params) for picture in (image, labels)]
        assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))
    across, down = zip(*seen, strict=True)
    assert (min(across), max(across), min(down), max(down)) == (-2, 2, -5, 5)


def test_a_shift_past_the_image_is_refused():
    with pytest.raises(ValueError, match=r"smaller than \[width, height\], \[9, 8\]; received \[8, 8\]"):
        RandomTranslate(pixels=[8, 8])(*pair())


@pytest.mark.parametrize("pixels", [[3], [1, -1], [1, 0.5]])
def test_shifts_are_two_whole_numbers(pixels):
    with pytest.raises(ValueError, match="two whole numbers"):
        RandomTranslate(pixels=pixels)


def test_gamma_is_the_power_of_pixels_between_0_and_1():
    gamma, (image, labels) = RandomGamma(gamma=[2, 2]), pair()
    made, same = gamma(image, labels)
    expected = (image.float() / 255) ** 2 * 255
    assert abs(made.float() - expected).max() <= 1
    assert torch.equal(same, labels)


def test_gamma_is_drawn_evenly():
    drawn = torch.tensor([RandomGamma(gamma=[1, 1.75]).make_params([])["gamma"] for _ in range(2000)])
    assert 1 <= drawn.min() < 1.02
    assert 1.73 < drawn.max() < 1.75
    assert abs(drawn.mean() - 1.375) < 0.02


@pytest.mark.parametrize("gamma", [[1], [2, 1], [-1, 1]])
def test_gamma_is_two_rising_numbers(gamma):
    with pytest.raises(ValueError, match="0 <= lowest <= highest"):
        RandomGamma(gamma=gamma)
