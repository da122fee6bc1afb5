import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from qprune.data import class_names, count_classes, image_shape, some_images
from qprune.errors import DataError

LABELS = torch.tensor([4, 0, 2, 2, 1])
PAIRS = TensorDataset(torch.randn(5, 3, 7, 9), LABELS)


class Photos(Dataset):
    """As torchvision writes them."""

    classes, targets = ("ant", "bee", "cat"), [2, 0]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.full((1, 4, 6), random.random() + np.random.rand()) + torch.rand(1), self.targets[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(PAIRS)


def message(part):
    with pytest.raises(DataError) as caught:
        image_shape(part)
    return str(caught.value)


@pytest.mark.parametrize(
    "part",
    [
        PAIRS,
        list(PAIRS),
        [(image.numpy(), label) for image, label in PAIRS],
        DataLoader(PAIRS, batch_size=2, shuffle=True),
        DataLoader(Stream(), batch_size=2),
    ],
    ids=["data set", "list", "arrays", "loader", "stream"],
)
def test_the_shape_is_that_of_the_first_image(part):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert image_shape(part) == (3, 7, 9)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_numbers_of_a_data_set_are_put_back():
    before = random.getstate(), torch.get_rng_state()
    assert image_shape(Photos()) == (1, 4, 6)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_some_images_are_spread_over_a_data_set_and_first_of_a_loader():
    images = PAIRS.tensors[0]
    assert torch.equal(some_images(PAIRS, 3), images[[0, 2, 4]])
    assert torch.equal(some_images(DataLoader(PAIRS, batch_size=2), 3), images[:3])
    assert torch.equal(some_images(DataLoader(Stream(), batch_size=2), 30), images)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (
            [torch.zeros(3, 7, 9)],
            "Data must be pairs of an image and its target; received a tensor of float32 and shape (3, 7, 9). Of two "
            "tensors make torch.utils.data.TensorDataset(images, targets).",
        ),
        (
            [{"image": 1}],
            "Data must be pairs of an image and its target; received dict. Of two tensors make "
            "torch.utils.data.TensorDataset(images, targets).",
        ),
        (
            [(Image.new("RGB", (4, 5)), 1)],
            "Images must be tensors of float32; received PIL.Image. Of a data set of torchvision convert them with "
            "transform=torchvision.transforms.ToTensor(), a tensor with image.float().",
        ),
        (
            [(torch.zeros(3, 7, 9, dtype=torch.uint8), 1)],
            "Images must be tensors of float32; received a tensor of uint8 and shape (3, 7, 9). Of a data set of "
            "torchvision convert them with transform=torchvision.transforms.ToTensor(), a tensor with image.float().",
        ),
        ([(torch.zeros(7, 9), 1)], "Images must be (C, H, W); received a tensor of float32 and shape (7, 9)."),
        (
            DataLoader(TensorDataset(torch.zeros(5, 9), LABELS)),
            "A loader's images must be (N, C, H, W); received a tensor of float32 and shape (1, 9).",
        ),
    ],
)
def test_what_is_no_image_has_its_sentence(part, sentence):
    assert message(part) == sentence


def test_names_of_classes_are_found_through_subsets_and_loaders():
    assert class_names(DataLoader(Subset(Photos(), [1]))) == ("ant", "bee", "cat")
    assert class_names(PAIRS) == ()


def test_tables_about_classes_are_no_names():
    photos = Photos()
    photos.classes = [("road", 0), ("sky", 1)]
    assert class_names(photos) == ()


def test_classes_are_counted_where_labels_are_at_hand():
    assert count_classes(PAIRS) == count_classes(list(PAIRS)) == count_classes(DataLoader(Subset(PAIRS, [1]))) == 5
    assert count_classes(Photos()) == 3
    maps = torch.tensor([[[0, 255], [6, 2]]])
    assert count_classes(TensorDataset(torch.zeros(1, 3, 2, 2), maps)) == 7
    assert count_classes(TensorDataset(torch.zeros(2, 3, 2, 2), torch.zeros(2))) is None
    assert count_classes(DataLoader(Stream())) is None
    assert count_classes([(torch.zeros(3, 2, 2), "cat")]) is None
