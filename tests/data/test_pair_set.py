import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from qprune.data import PairSet, colour, eval_loader, train_loader
from qprune.data.joint import build_joint_augment

MEAN, STD = (0.1, 0.5, 0.7), (0.2, 0.3, 0.9)
PALETTE = ((128, 64, 128), (70, 130, 180), (0, 0, 142))
CROP = [{"name": "RandomCrop", "size": [6, 10], "padding": 2}, {"name": "RandomHorizontalFlip"}]


def pictures(count=11):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (count, 6, 10), dtype=torch.uint8, generator=generator)
    labels[:, 2, 3] = 255
    return list((labels * 50).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()), list(labels)


def scene_set(tables=CROP, size=(6, 10), **options):
    images, labels = pictures()
    augment = build_joint_augment(tables, [(images[0], labels[0])], fixed=False)
    return PairSet(images, labels, size, MEAN, STD, augment=augment, **options)


def unpaired_set(targets=7, **options):
    greys = [torch.full((3, 6, 10), number, dtype=torch.uint8) for number in range(11 + targets)]
    return PairSet(greys[:11], greys[11:], (6, 10), (0.5,) * 3, (0.5,) * 3, unpaired=True, **options)


def numbers(images):
    return [round(float((image[0, 0, 0] + 1) * 127.5)) for image in images]


def test_an_item_is_an_image_and_its_labels():
    image, labels = scene_set()[4]
    stored, expected = (side[4] for side in pictures())
    torch.testing.assert_close(image[1], (stored[1] / 255 - 0.5) / 0.3)
    assert (labels.dtype, labels.tolist()) == (torch.int64, expected.tolist())


def test_pictures_are_squeezed_to_their_size():
    image, labels = scene_set(tables=(), size=(3, 5))[4]
    assert (image.shape, labels.shape) == ((3, 3, 5), (3, 5))


def test_training_pairs_stay_pairs():
    data = scene_set()
    for index in range(11):
        image, labels = data[(2, index)]
        inside = labels < 255
        torch.testing.assert_close(image[0][inside], (labels[inside] * 50 / 255 - 0.1) / 0.2)


def test_the_same_seed_epoch_and_index_give_the_same_sample():
    def images(seed, epoch):
        return torch.stack([scene_set(seed=seed)[(epoch, index)][0] for index in range(11)])

    assert torch.equal(images(3, 2), images(3, 2))
    assert not torch.equal(images(3, 2), images(4, 2))
    assert not torch.equal(images(3, 2), images(3, 1))


def test_sampling_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    scene_set()[(1, 4)]
    unpaired_set()[(1, 4)]
    assert torch.equal(torch.get_rng_state(), state)


def test_an_index_past_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        scene_set()[11]


def test_labels_are_coloured_and_void_is_black():
    images, labels = pictures()
    data = PairSet(labels, images, (6, 10), (0.5,) * 3, (0.5,) * 3, PALETTE)
    painted = ((data[4][0] + 1) * 127.5).round()
    for i in range(6):
        for j in range(10):
            label = int(labels[4][i, j])
            assert painted[:, i, j].tolist() == list(PALETTE[label] if label < 255 else (0, 0, 0))
    assert data[4][0].min() >= -1
    assert data[4][1].shape == (3, 6, 10)


def test_batches_of_labels_are_coloured_too():
    labels = torch.stack(pictures()[1])
    assert torch.equal(colour(labels, PALETTE)[5], colour(labels[5].long(), PALETTE))


def test_unpaired_targets_are_any_of_them_and_change_with_the_epoch():
    data = unpaired_set()
    epochs = [numbers(data[(epoch, index)][1] for index in range(11)) for epoch in range(30)]
    assert epochs[0] != epochs[1]
    assert {number for epoch in epochs for number in epoch} == set(range(11, 18))
    assert numbers(data[(5, index)][0] for index in range(11)) == list(range(11))
    assert epochs[3] == numbers(unpaired_set()[(3, index)][1] for index in range(11))


def test_unpaired_targets_are_augmented_by_themselves():
    ramp = torch.arange(60, dtype=torch.uint8).view(1, 6, 10).expand(3, -1, -1).contiguous()
    flip = build_joint_augment([{"name": "RandomHorizontalFlip"}], [(ramp,), (ramp,)])
    data = PairSet([ramp], [ramp], (6, 10), (0.5,) * 3, (0.5,) * 3, augment=flip, unpaired=True)
    drawn = {tuple(numbers(data[(epoch, 0)])) for epoch in range(40)}
    assert drawn == {(0, 0), (0, 9), (9, 0), (9, 9)}


def test_evaluation_is_by_place():
    data = unpaired_set()
    assert numbers(data[index][1] for index in range(11)) == [11, 12, 13, 14, 15, 16, 17, 11, 12, 13, 14]
    inputs, _ = next(iter(eval_loader(data, batch=11)))
    assert numbers(inputs) == list(range(11))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("make", [scene_set, unpaired_set])
def test_two_workers_give_the_batches_of_none(make):
    alone, helped = (train_loader(make(), batch=4, seed=1, workers=workers) for workers in (0, 2))
    for epoch in (0, 1):
        alone.sampler.epoch = helped.sampler.epoch = epoch
        for ours, theirs in zip(alone, helped, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_anybodys_loader_takes_a_pair_set():
    images, labels = next(iter(DataLoader(scene_set(), batch_size=4)))
    assert (images.shape, labels.shape) == ((4, 3, 6, 10), (4, 6, 10))


def test_a_pair_set_is_copied_and_pickled_whole():
    data = scene_set(seed=7)
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert all(torch.equal(a, b) for a, b in zip(other[(1, 3)], data[(1, 3)], strict=True))
