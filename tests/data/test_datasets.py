import copy
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from qprune.data import ImageSet, SeededSet, build_augment
from qprune.data.augment import Augment

MEAN, STD = (0.1, 0.5, 0.7), (0.2, 0.3, 0.9)
TABLES = [{"name": "RandomCrop", "size": [5, 7], "padding": 2}, {"name": "RandomHorizontalFlip"}]


def pixels(count=11):
    return torch.randint(0, 256, (count, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def image_set(seed=0, augment=True):
    chosen = build_augment(TABLES, (3, 5, 7)) if augment else None
    return ImageSet(pixels(), torch.arange(11) * 2, MEAN, STD, augment=chosen, seed=seed)


def test_images_are_normalized_as_torchvision_does():
    image, label = image_set()[4]
    oracle = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    torch.testing.assert_close(image, oracle(pixels()[4]), rtol=0, atol=1e-6)
    assert label == 8


def test_an_index_alone_is_never_augmented():
    plain = image_set(augment=False)
    assert all(torch.equal(image_set()[i][0], plain[i][0]) for i in range(11))


def test_the_same_seed_epoch_and_index_give_the_same_sample():
    assert torch.equal(image_set(seed=3)[(2, 5)][0], image_set(seed=3)[(2, 5)][0])


@pytest.mark.parametrize(("seed", "epoch"), [(4, 2), (3, 1)])
def test_another_seed_or_epoch_gives_other_samples(seed, epoch):
    ours, theirs = image_set(seed=3), image_set(seed=seed)
    assert any(not torch.equal(ours[(2, i)][0], theirs[(epoch, i)][0]) for i in range(11))


def test_a_sample_does_not_depend_on_its_place_in_the_batch():
    data = image_set()
    forward = data.__getitems__([(1, i) for i in range(11)])
    backward = data.__getitems__([(1, i) for i in reversed(range(11))])[::-1]
    for i in range(11):
        assert torch.equal(forward[i][0], backward[i][0])
        assert torch.equal(forward[i][0], data[(1, i)][0])


def test_augmentation_leaves_the_stored_images_alone():
    data = image_set()
    data.__getitems__([(1, i) for i in range(11)])
    assert torch.equal(data.images, pixels())


def test_augmentation_leaves_the_global_generators_alone():
    data, torch_state, python_state = image_set(), torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()[1].copy()
    data[(1, 4)]
    SeededSet([5, 6])[(1, 0)]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_the_generator_is_restored_where_a_transform_fails():
    def broken(image):
        raise RuntimeError("broken")

    data = ImageSet(pixels(), torch.zeros(11, dtype=torch.int64), MEAN, STD, augment=Augment((broken,)))
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        data[(0, 0)]
    assert torch.equal(torch.get_rng_state(), state)


def test_an_index_past_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        image_set()[11]


def test_anybodys_loader_takes_an_image_set():
    images, labels = next(iter(DataLoader(image_set(), batch_size=4)))
    assert images.shape == (4, 3, 5, 7)
    assert labels.tolist() == [0, 2, 4, 6]


def test_an_image_set_is_copied_and_pickled_whole():
    data = image_set(seed=7)
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert torch.equal(other[(1, 3)][0], data[(1, 3)][0])


def test_a_foreign_dataset_draws_the_same_numbers_for_the_same_key():
    class Noisy:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return index, float(torch.rand(())), random.random(), np.random.rand()

    data = SeededSet(Noisy(), seed=2)
    first = data[(5, 1)]
    torch.rand(3), random.random(), np.random.rand()
    assert data[(5, 1)] == first
    for other in (data[(6, 1)], data[(5, 2)], SeededSet(Noisy(), seed=3)[(5, 1)]):
        assert not set(first[1:]) & set(other)
    assert len(data) == 4
