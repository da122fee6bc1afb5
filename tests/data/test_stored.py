import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torchvision import tv_tensors
from torchvision.transforms import v2

from qprune.data import ImageSet, PairSet, build_augment, mix, train_loader
from qprune.data.joint import build_joint_augment
from qprune.data.seeds import AUGMENT
from qprune.data.stored import colour_table

MEAN, STD = (0.1, 0.5, 0.7), (0.2, 0.3, 0.9)
PALETTE = ((128, 64, 128), (70, 130, 180), (0, 0, 142))
CROP = {"name": "RandomCrop", "size": [9, 12], "padding": 2}
FLIP = {"name": "RandomHorizontalFlip"}
COLOURS = {"name": "ColorJitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4}
COUNT = 23
ROWS = {
    "whole batches": [CROP, FLIP, {"name": "RandomGamma", "gamma": [0.5, 1.5]}],
    "single samples": [{"name": "RandomRotation", "degrees": 20}],
    "single samples, then whole batches": [{"name": "RandomRotation", "degrees": 20}, CROP, FLIP],
    "whole batches between single samples": [
        FLIP,
        {"name": "ColorJitter", "hue": 0.2},
        CROP,
        {"name": "RandomErasing"},
    ],
}


def pictures():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (COUNT, 3, 9, 12), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 3, (COUNT, 9, 12), dtype=torch.uint8, generator=generator)


def normalized(image):
    """In the order of float operations that a network was always trained with."""
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    return (image.as_subclass(torch.Tensor).float() / 255 - mean) / std


def image_set(tables):
    augment = build_augment(tables, (3, 9, 12))
    return ImageSet(pictures()[0], torch.arange(COUNT) % 5, MEAN, STD, augment=augment, seed=6)


def pair_set(tables=(CROP, FLIP), **options):
    images, labels = (list(side) for side in pictures())
    augment = build_joint_augment(tables, [(images[0], labels[0])], fixed=False)
    return PairSet(images, labels, (9, 12), MEAN, STD, augment=augment, seed=6, **options)


def batches(data, batch=5, **options):
    loader = train_loader(data, batch=batch, seed=6, **options)
    loader.sampler.epoch = 4
    return list(loader.sampler), [torch.cat(side) for side in zip(*loader, strict=True)]


def torchvision_alone(tables, keys, samples):
    """Each sample by torchvision, seeded by its place alone."""
    transform = v2.Compose(build_joint_augment(tables, [], fixed=False).transforms)
    for epoch, index in keys:
        torch.manual_seed(int(mix(AUGMENT, 6, epoch, index)[0]))
        yield transform(*samples(index))


@pytest.mark.parametrize("row", ROWS)
def test_images_of_batches_are_to_the_bit_those_that_torchvision_makes_one_by_one(row):
    images, _ = pictures()
    keys, (made, labels) = batches(image_set(ROWS[row]))
    alone = torchvision_alone(ROWS[row], keys, lambda index: [tv_tensors.Image(images[index])])
    assert torch.equal(made, torch.stack([normalized(image) for image in alone]))
    assert labels.tolist() == [index % 5 for _, index in keys]
    assert made.is_contiguous()


@pytest.mark.parametrize("row", [name for name in ROWS if "between" not in name])
def test_scenes_of_batches_are_to_the_bit_those_that_torchvision_makes_one_by_one(row):
    images, maps = pictures()
    keys, (made, labels) = batches(pair_set(ROWS[row]))
    samples = torchvision_alone(ROWS[row], keys, lambda i: (tv_tensors.Image(images[i]), tv_tensors.Mask(maps[i])))
    for place, (image, label_map) in enumerate(samples):
        assert torch.equal(made[place], normalized(image))
        assert torch.equal(labels[place], label_map.long())


def test_neither_the_size_of_batches_nor_loader_processes_change_a_sample():
    several = image_set(ROWS["single samples, then whole batches"]), pair_set(), pair_set(unpaired=True)
    for data in (*several, pair_set([CROP, COLOURS, FLIP]), image_set([COLOURS])):
        expected = batches(data, batch=5)[1]
        for options in ({"batch": 1}, {"batch": 23}, {"batch": 4, "workers": 2}):
            assert all(map(torch.equal, batches(data, **options)[1], expected))


def test_pictures_of_several_sizes_are_augmented_one_by_one_and_come_to_one_size():
    images, labels = (list(side) for side in pictures())
    images[3], labels[3] = images[3][:, :7, :11], labels[3][:7, :11]
    augment = build_joint_augment([FLIP], [(images[0], labels[0])], fixed=False)
    data = PairSet(images, labels, (9, 12), MEAN, STD, augment=augment, seed=6)
    keys = [(2, index) for index in range(6)]
    mixed, alone = data.__getitems__(keys), [data[key] for key in keys]
    assert data.fetch(keys).drawn == ((), ())
    for ours, theirs in zip(mixed, alone, strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_bytes_travel():
    fetched = image_set([CROP, FLIP]).fetch([(2, 5), (2, 4)])
    assert (fetched.inputs.dtype, fetched.inputs.shape) == (torch.uint8, (2, 3, 9, 12))
    assert torch.equal(fetched.inputs, pictures()[0][[5, 4]])
    assert [tuple(numbers.shape) for numbers in fetched.drawn[0]] == [(2, 2), (2, 1)]
    scenes = pair_set(palette=PALETTE).fetch([(2, 5), (2, 4)])
    assert torch.equal(scenes.targets, pictures()[1][[5, 4]])
    assert scenes.inputs.dtype == scenes.targets.dtype == torch.uint8


class Sent(TorchDispatchMode):
    """Names of operations, and how often a tensor goes to another device."""

    def __init__(self):
        super().__init__()
        self.names, self.sent = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.names.add(name)
        self.sent += name == "_to_copy" and args[0].device != made.device
        return made


@pytest.mark.parametrize(
    "data",
    [
        image_set(
            [CROP, FLIP, {"name": "RandomGamma", "gamma": [0.5, 1.5]}, {"name": "RandomTranslate", "pixels": [2, 3]}]
        ),
        pair_set([{"name": "RandomTranslate", "pixels": [2, 3]}, CROP, FLIP]),
        pair_set(palette=PALETTE, unpaired=True),
        pair_set([FLIP, COLOURS]),
    ],
    ids=["images", "scenes", "unpaired", "colours"],
)
def test_a_gpu_augments_and_is_not_waited_for(data):
    fetched = data.fetch([(1, index) for index in range(7)])
    expected = data.finisher()(fetched)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:  # refuses two devices at once, and reading a value back
        finish = data.finisher("cuda")
        there = tree_map_only(torch.Tensor, mode.from_tensor, fetched)
        with Sent() as seen:
            made = finish(there)
    assert [(batch.device.type, batch.dtype, batch.shape) for batch in made] == [
        ("cuda", batch.dtype, batch.shape) for batch in expected
    ]
    tensors = [leaf for leaf in tree_leaves(fetched) if isinstance(leaf, torch.Tensor)]
    assert seen.sent == len(tensors)  # a constant that was sent now would wait for the device
    assert not {"_local_scalar_dense", "nonzero", "lift_fresh"} & seen.names


def test_an_index_counts_from_the_end_as_of_a_list():
    data = image_set([CROP])
    assert torch.equal(data[-1][0], data[COUNT - 1][0])
    with pytest.raises(IndexError):
        data[-COUNT - 1]


def test_labels_without_a_class_are_black():
    table = colour_table(PALETTE)
    assert (table.shape, table[1].tolist(), int(table[3:].sum())) == ((256, 3), [70, 130, 180], 0)
    assert table.dtype == torch.uint8
    assert np.array_equal(table[:3], PALETTE)
