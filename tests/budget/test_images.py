"""Images to measure on: drawn by a seed, in batches of one size, without labels or augmentation."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from qprune.budget import take_images
from qprune.data import load_data
from qprune.errors import DataError
from qprune.spec import DataSpec

NUMBERED = TensorDataset(torch.arange(150.0).view(-1, 1, 1, 1), torch.zeros(150))


def numbers(batches):
    return [int(number) for batch in batches for number in batch.flatten()]


def test_they_are_drawn_by_chance_and_by_the_seed():
    drawn, again, other = (numbers(take_images(NUMBERED, 90, seed=seed)) for seed in (0, 0, 1))
    assert len(set(drawn)) == 90
    assert drawn == again != other
    assert drawn != sorted(drawn)


def test_batches_are_of_one_size():
    assert [len(batch) for batch in take_images(NUMBERED, 129)] == [43, 43, 43]
    assert [len(batch) for batch in take_images(NUMBERED, 1000)] == [50, 50, 50]


def test_of_a_loader_the_first_are_taken():
    loader = DataLoader(NUMBERED, batch_size=20)
    assert numbers(take_images(loader, 50)) == list(range(50))


def test_they_are_not_augmented():
    spec = DataSpec("digits", augment=({"name": "RandomHorizontalFlip", "p": 1.0},))
    plain, augmented = (load_data(each).train for each in (DataSpec("digits"), spec))
    assert torch.equal(take_images(plain, 50)[0], take_images(augmented, 50)[0])


def test_no_images_are_refused():
    with pytest.raises(DataError, match="images must be at least 1, better a few hundred; received 0"):
        take_images(NUMBERED, 0)
    with pytest.raises(DataError, match="There are no images to measure on"):
        take_images(DataLoader([]), 5)
    with pytest.raises(DataError, match="must begin with its images, a tensor; it holds a dict"):
        take_images(DataLoader([{"image": torch.zeros(1, 2, 2)}]), 5)
