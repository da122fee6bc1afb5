"""Lengths, sizes and rates fit how many images there are, and how large."""

from pathlib import Path

import pytest

from qprune.starting import Looked
from qprune.starting.setting import Setting


def setting(images: int = 1000, stored: tuple[int, int] = (32, 32), arch: str = "resnet20", **options: bool) -> Setting:
    looked = Looked("folder", Path("there"), ("a", "b"), {"train": images}, (500, 500), (stored,))
    return Setting(looked, arch, **options)


@pytest.mark.parametrize("images", [3, 40, 399, 400, 1200, 3000, 50_000, 1_300_000])
def test_trainings_have_some_two_thousand_steps_within_bounds(images: int) -> None:
    fits = setting(images)
    steps = fits.epochs * fits.per_epoch
    assert 5 <= fits.epochs <= 200
    assert 2000 <= steps <= 2000 + fits.per_epoch or fits.epochs in (5, 200)
    assert setting(images, pretrained=True).epochs <= fits.epochs


@pytest.mark.parametrize("sites", [1, 10, 120])
def test_pruning_leaves_each_site_ten_steps_in_the_first_third(sites: int) -> None:
    fits = setting(1000)
    assert 0.35 * fits.epochs_to_prune(sites) * fits.per_epoch >= 10 * sites


@pytest.mark.parametrize("images", [20, 1000, 50_000])
def test_quantizers_have_a_hundred_steps_to_measure(images: int) -> None:
    fits = setting(images)
    assert fits.epochs_to_quantize * fits.per_epoch >= 400


@pytest.mark.parametrize(
    ("stored", "arch", "size", "resize"),
    [
        ((8, 8), "resnet20", 16, None),
        ((28, 28), "resnet20", 32, None),
        ((480, 640), "resnet20", 64, 73),
        ((480, 640), "torchvision/resnet18", None, None),
        ((100, 90), "torchvision/resnet18", 96, None),
    ],
)
def test_images_come_to_a_size_that_trains_fast(
    stored: tuple[int, int], arch: str, size: int | None, resize: int | None
) -> None:
    fits = setting(stored=stored, arch=arch)
    assert (fits.size, fits.resize) == (size, resize)
