import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from qprune.data import colour, describe, load_data, train_loader
from qprune.errors import DataError
from qprune.spec import DataSpec


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def spec(root, name="translation", **options):
    return DataSpec(name, root=str(root), **{"translate": "AtoB", "validation": 0.0} | options)


def message(given, read=describe):
    with pytest.raises(DataError) as caught:
        read(given)
    return str(caught.value)


def greys(data, side):
    return [round(float((data[index][side][0, 0, 0] + 1) * 127.5)) for index in range(len(data))]


@pytest.mark.parametrize(("translate", "first", "second"), [("AtoB", 0, 100), ("BtoA", 100, 0)])
def test_images_of_two_kinds_come_in_pairs(two_kinds, translate, first, second):
    splits = load_data(spec(two_kinds, translate=translate))
    assert greys(splits.train, 0) == [first + i for i in range(5)]
    assert greys(splits.train, 1) == [second + i for i in range(5)]
    assert (splits.info.kind, splits.info.classes, splits.info.palette) == ("translation", (), ())
    assert splits.info == describe(spec(two_kinds, translate=translate))
    assert splits.info.sizes == {"train": 5, "val": 0, "test": 3}


def test_black_is_minus_one_and_white_is_one(two_kinds):
    write(two_kinds / "testA" / "0.png", np.full((6, 10, 3), 255))
    write(two_kinds / "testB" / "0.png", np.zeros((6, 10, 3)))
    image, target = load_data(spec(two_kinds)).test[0]
    assert (image.dtype, image.unique().tolist(), target.unique().tolist()) == (torch.float32, [1.0], [-1.0])


def test_halves_of_one_file_are_a_pair(tmp_path):
    both = np.concatenate([np.full((6, 10, 3), 30), np.full((6, 10, 3), 200)], axis=1)
    for path in ("train/0.png", "train/1.png", "val/0.png", "test/0.png"):
        write(tmp_path / path, both)
    splits = load_data(spec(tmp_path, translate="BtoA"))
    assert splits.info.shape == splits.test[0][0].shape == (3, 6, 10)
    assert (greys(splits.train, 0), greys(splits.train, 1)) == ([200, 200], [30, 30])
    assert len(splits.val) == 1


def test_a_file_without_two_halves_is_named(tmp_path):
    write(tmp_path / "train/0.png", np.zeros((6, 20, 3)))
    path = write(tmp_path / "test/0.png", np.zeros((6, 21, 3)))
    assert message(spec(tmp_path), load_data) == (
        f"{path}: must be two images of one width side by side; received 21 pixels."
    )


def test_unpaired_kinds_need_neither_names_nor_numbers_in_common(two_kinds):
    for i in range(4):
        write(two_kinds / "trainB" / f"more{i}.png", np.full((6, 10, 3), 200 + i))
    write(two_kinds / "testB" / "9.png", np.full((6, 10, 3), 109))
    splits = load_data(spec(two_kinds, unpaired=True), seed=3)
    seen = {round(float((splits.train[(epoch, 2)][1][0, 0, 0] + 1) * 127.5)) for epoch in range(60)}
    assert seen == {*range(100, 105), *range(200, 204)}
    assert len(splits.train) == 5
    assert (greys(splits.test, 0), greys(splits.test, 1)) == ([0, 1, 2], [100, 101, 102])
    assert splits.train.seed == 3


def test_no_target_of_validation_is_trained_on(two_kinds):
    for i in range(5, 9):
        write(two_kinds / "trainB" / f"{i}.png", np.full((6, 10, 3), 100 + i))
    splits = load_data(spec(two_kinds, unpaired=True, validation=0.4, train_images=2))
    assert (len(splits.train), len(splits.val)) == (2, 2)
    seen = {round(float((splits.train[(epoch, 1)][1][0, 0, 0] + 1) * 127.5)) for epoch in range(60)}
    assert len(seen) == 5  # 4 of 9 are held out
    assert not seen & set(greys(splits.val, 1))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("unpaired", [False, True])
def test_two_workers_give_the_epoch_of_none(two_kinds, unpaired):
    crop = [{"name": "Resize", "size": [9, 12]}, {"name": "RandomCrop", "size": 8}]
    data = load_data(spec(two_kinds, unpaired=unpaired, size=8, augment=crop)).train
    alone, helped = (list(train_loader(data, batch=2, workers=workers)) for workers in (0, 2))
    assert all(torch.equal(a, b) for x, y in zip(alone, helped, strict=True) for a, b in zip(x, y, strict=True))


def test_a_pair_is_augmented_alike(tmp_path):
    ramp = np.arange(60).reshape(6, 10, 1) * np.ones(3)
    for folder in ("trainA", "trainB", "testA", "testB"):
        write(tmp_path / folder / "0.png", ramp)
    crop = [{"name": "RandomCrop", "size": [6, 10], "padding": 3}, {"name": "RandomHorizontalFlip"}]
    data = load_data(spec(tmp_path, augment=crop)).train
    assert all(torch.equal(*data[(epoch, 0)]) for epoch in range(20))


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_named_scenes_may_lie_in_folders_of_two_kinds(two_kinds, name):
    info = describe(spec(two_kinds, name))
    assert (info.kind, info.shape, info.sizes["train"]) == ("translation", (3, 6, 10), 5)
    assert greys(load_data(spec(two_kinds, name, translate="BtoA")).test, 0) == [100, 101, 102]


def test_scenes_become_photos_of_their_coloured_labels(scenes):
    labelled = load_data(spec(scenes, "segmentation", translate=None))
    splits = load_data(spec(scenes, "segmentation", translate="BtoA"))
    assert (splits.info.kind, splits.info.palette) == ("translation", labelled.info.palette)
    for (photo, labels), (source, target) in zip(labelled.test, splits.test, strict=True):
        torch.testing.assert_close(target, photo)
        torch.testing.assert_close((source + 1) * 127.5, colour(labels, splits.info.palette).float())
    there = load_data(spec(scenes, "segmentation")).test
    assert all(torch.equal(a, b) for a, b in zip(there[1], splits.test[1][::-1], strict=True))


def test_labels_are_coloured_after_they_are_augmented(scenes):
    turn = [{"name": "RandomRotation", "degrees": 40, "interpolation": "bilinear"}]
    splits = load_data(spec(scenes, "segmentation", translate="BtoA", augment=turn, size=[9, 13]))
    painted = ((splits.train[(0, 2)][0] + 1) * 127.5).round().flatten(1).T.unique(dim=0)
    assert {tuple(c) for c in painted.int().tolist()} <= {(0, 0, 0), *splits.info.palette}


def test_scenes_may_be_unpaired_too(scenes):
    splits = load_data(spec(scenes, "segmentation", translate="BtoA", unpaired=True))
    assert len({splits.train[(epoch, 0)][1].sum().item() for epoch in range(20)}) > 2
    assert len({splits.train[(epoch, 0)][0].sum().item() for epoch in range(20)}) == 1


@pytest.mark.parametrize("folder", ["trainB", "testA"])
def test_a_missing_folder_is_named(two_kinds, folder):
    shutil.rmtree(two_kinds / folder)
    assert message(spec(two_kinds)).startswith(f"{two_kinds / folder}: there is no such folder. The layout is root/")


def test_a_missing_split_is_named(two_kinds):
    for folder in ("testA", "testB"):
        shutil.rmtree(two_kinds / folder)
    assert message(spec(two_kinds)).endswith("test is missing.")


def test_an_empty_folder_is_named(two_kinds):
    for path in (two_kinds / "testB").iterdir():
        path.unlink()
    assert message(spec(two_kinds)).startswith(f"{two_kinds / 'testB'}: must hold images (.bmp ")


def test_an_image_without_partner_is_named(two_kinds):
    path = write(two_kinds / "testB" / "9.png", np.zeros((6, 10, 3)))
    assert message(spec(two_kinds)) == (
        f"{path}: every image of B must have its image of A, of the same name; {two_kinds / 'testA'} has none. "
        "1 of 4 have none: add them, or take these away."
    )


def test_a_pair_of_two_sizes_is_named(two_kinds):
    path = write(two_kinds / "testB" / "1.png", np.zeros((6, 9, 3)))
    assert message(spec(two_kinds, size=4), load_data) == (
        f"{path}: must be of one size with its partner, 6x10 (height x width); received 6x9."
    )


def test_a_direction_is_needed(two_kinds):
    assert message(spec(two_kinds, translate=None)) == (
        'data.translate must be "AtoB" or "BtoA" for data.name = "translation"; received none.'
    )


def test_images_with_one_class_are_not_translated():
    assert message(DataSpec("cifar10", translate="AtoB")) == (
        "data.translate takes scenes or data.name = \"translation\"; received 'AtoB' with 'cifar10'."
    )


def test_statistics_are_those_of_translation(two_kinds):
    assert message(spec(two_kinds, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))) == (
        "data.mean and data.std must be left out with data.translate, which brings pixels to [-1, 1]; "
        "received [0.1, 0.2, 0.3] and [1.0, 1.0, 1.0]."
    )


def test_only_cifar_is_downloaded():
    assert message(DataSpec("camvid", download=True)) == (
        "data.download fetches cifar10 and cifar100; received true with 'camvid'."
    )
