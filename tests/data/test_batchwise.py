import pickle

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from qprune.data.batchwise import batchwise, copied, indexed
from qprune.data.transforms import RandomGamma, RandomTranslate

COUNT = 60
FILLS = {tv_tensors.Image: 7, tv_tensors.Mask: 255}
TRANSFORMS = [
    v2.RandomHorizontalFlip(),
    v2.RandomVerticalFlip(p=0.3),
    v2.RandomCrop((5, 7)),
    v2.RandomCrop((9, 11), padding=2, fill=FILLS),
    v2.RandomCrop((4, 12), padding=[1, 2], fill=FILLS),
    v2.RandomCrop((13, 9), padding=[1, 2, 3, 4], fill=FILLS),
    v2.RandomCrop((9, 11), padding=[3, 0, 2, 0], padding_mode="reflect"),
    v2.RandomCrop((9, 11), padding=3, padding_mode="edge"),
    v2.RandomCrop((9, 11), padding=3, padding_mode="symmetric"),
    v2.RandomCrop((9, 5)),
    v2.RandomInvert(),
    v2.RandomPosterize(bits=3),
    v2.RandomSolarize(threshold=100, p=0.6),
    RandomGamma([0.4, 1.9]),
    RandomTranslate([4, 3]),
]


def pictures():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (COUNT, 3, 9, 11), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 5, (COUNT, 9, 11), dtype=torch.uint8, generator=generator)


def drawn_for(transform, images, seed=0):
    numbers = []
    for place, image in enumerate(images):
        torch.manual_seed(seed + place)
        numbers.append(transform.draw(image))
    return transform.stack(numbers)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_a_batch_is_what_torchvision_makes_of_each_sample(transform):
    images, labels = pictures()
    ours = batchwise(transform)
    drawn = drawn_for(ours, images)
    batches = ours.apply(images, drawn), ours.apply(labels, drawn)
    changed = 0
    for place in range(COUNT):
        torch.manual_seed(place)
        theirs = transform(tv_tensors.Image(images[place]), tv_tensors.Mask(labels[place]))
        for batch, picture in zip(batches, theirs, strict=True):
            assert torch.equal(batch[place], picture.as_subclass(torch.Tensor))
        changed += not torch.equal(theirs[0], images[place])
    assert changed > 10
    assert ours.size_after((9, 11)) == tuple(batches[0].shape[2:]) == tuple(batches[1].shape[1:])


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_a_sample_is_the_same_alone_and_leaves_the_generator_where_torchvision_does(transform):
    images, _ = pictures()
    ours = batchwise(transform)
    drawn = drawn_for(ours, images)
    assert torch.equal(ours.apply(images[4:5], drawn[4:5])[0], ours.apply(images, drawn)[4])
    torch.manual_seed(COUNT - 1)
    transform(tv_tensors.Image(images[-1]))
    following = torch.rand(3)
    drawn_for(ours, images)
    assert torch.equal(torch.rand(3), following)


def test_stored_pictures_stay_as_they_are():
    images, labels = pictures()
    for transform in map(batchwise, TRANSFORMS):
        drawn = drawn_for(transform, images)
        transform.apply(images, drawn), transform.apply(labels, drawn)
    assert torch.equal(images, pictures()[0])
    assert torch.equal(labels, pictures()[1])


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomCrop(5, pad_if_needed=True),
        v2.RandomCrop(5, padding=1, fill=[1, 2, 3]),
        v2.RandomRotation(15),
        v2.RandomResizedCrop(5),
        v2.RandomErasing(),
        v2.AutoAugment(),
    ],
    ids=str,
)
def test_what_would_round_differently_or_depends_on_the_picture_is_left_to_torchvision(transform):
    assert batchwise(transform) is None


def test_a_subclass_is_left_to_itself():
    class Mine(v2.RandomHorizontalFlip):
        pass

    assert batchwise(Mine()) is None


def test_chance_is_compared_in_float32_as_torchvision_compares_it(monkeypatch):
    image = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, 0.7))  # float32(0.7) is below 0.7
    flip = v2.RandomHorizontalFlip(p=0.7)
    assert torch.equal(flip(image), image)
    assert batchwise(flip).draw(image) == (0,)


def test_a_crop_that_is_larger_than_the_picture_is_refused_in_torchvision_s_words():
    with pytest.raises(ValueError, match=r"Required crop size \(9, 12\) is larger than input image size \(9, 11\)"):
        batchwise(v2.RandomCrop((9, 12))).draw(pictures()[0][0])


def test_windows_are_the_same_by_copies_and_by_one_index():
    images, _ = pictures()
    places = torch.stack([torch.arange(COUNT) % 5, torch.arange(COUNT) % 4], 1)
    assert torch.equal(copied(images, places, 5, 8), indexed(images, places, 5, 8))
    assert indexed(images, places, 5, 8).is_contiguous()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_transforms_are_pickled_for_loader_processes_that_are_started_anew(transform):
    images, _ = pictures()
    ours, copy = batchwise(transform), pickle.loads(pickle.dumps(batchwise(transform)))
    assert torch.equal(drawn_for(ours, images), drawn_for(copy, images))
