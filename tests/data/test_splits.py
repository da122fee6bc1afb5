import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from attrs import evolve
from PIL import Image

from qprune.data import NAMED, describe, load_data, train_loader
from qprune.data.cifar import cifar_source
from qprune.errors import DataError
from qprune.spec import DataSpec

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10.tar.gz"
AUGMENT = ({"name": "RandomCrop", "size": 32, "padding": 4}, {"name": "RandomHorizontalFlip"})


@pytest.fixture(autouse=True)
def no_default_root(monkeypatch, tmp_path):
    monkeypatch.delenv("QPRUNE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def message(spec, read=describe):
    with pytest.raises(DataError) as caught:
        read(spec)
    return str(caught.value)


def fake_cifar(monkeypatch, train=40, test=20):
    class Fake:
        base_folder = "cifar-10-batches-py"

        def __init__(self, root, train, download):
            size = counts[train]
            self.data = (np.arange(size * 32 * 32 * 3) % 251).astype(np.uint8).reshape(size, 32, 32, 3)
            self.targets = [i % 10 for i in range(size)]

    counts = {True: train, False: test}
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    sizes = {"train": train, "val": 0, "test": test}
    monkeypatch.setitem(NAMED, "cifar10", evolve(NAMED["cifar10"], sizes=sizes))


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_named_sets_are_described_without_the_data(name, classes):
    info = describe(DataSpec(name=name))
    assert len(set(info.classes)) == classes
    assert info.shape == (3, 32, 32)
    assert info.sizes == {"train": 45000, "val": 5000, "test": 10000}


def test_cifar100_is_normalized_as_published():
    info = describe(DataSpec(name="cifar100"))
    assert info.mean == (0.5071, 0.4865, 0.4409)
    assert info.std == (0.2673, 0.2564, 0.2762)


def test_all_training_images_train_where_nothing_is_chosen():
    assert describe(DataSpec(name="cifar10", validation=0)).sizes == {"train": 50000, "val": 0, "test": 10000}


def test_train_images_count_what_is_trained_on():
    sizes = describe(DataSpec(name="cifar10", validation=0.1, train_images=10000)).sizes
    assert sizes == {"train": 10000, "val": 5000, "test": 10000}


def test_splits_are_stratified_and_disjoint(monkeypatch):
    fake_cifar(monkeypatch)
    spec = DataSpec(name="cifar10", validation=0.25, train_images=20)
    splits = load_data(spec)
    assert np.bincount(splits.train.labels).tolist() == [2] * 10
    assert np.bincount(splits.val.labels).tolist() == [1] * 10
    rows = {bytes(image.flatten().tolist()) for part in (splits.train, splits.val) for image in part.images}
    assert len(rows) == 30
    assert splits.info == describe(spec)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [20, 10, 20]


def test_the_split_is_the_same_for_every_seed(monkeypatch):
    fake_cifar(monkeypatch)
    spec = DataSpec(name="cifar10", validation=0.25)
    ours, theirs = load_data(spec, seed=0), load_data(spec, seed=1)
    assert torch.equal(ours.train.images, theirs.train.images)
    assert (ours.train.seed, theirs.train.seed) == (0, 1)


def test_the_validation_images_do_not_depend_on_train_images(monkeypatch):
    fake_cifar(monkeypatch)
    some, every = (load_data(DataSpec(name="cifar10", validation=0.25, train_images=n)) for n in (10, None))
    assert torch.equal(some.val.images, every.val.images)


def test_cifar_images_are_channels_first_and_only_training_is_augmented(monkeypatch):
    fake_cifar(monkeypatch)
    splits = load_data(DataSpec(name="cifar10", augment=AUGMENT))
    assert splits.train[0][0].shape == (3, 32, 32)
    assert splits.test.images[1, 2, 3, 5] == (1 * 32 * 32 * 3 + (3 * 32 + 5) * 3 + 2) % 251
    assert splits.train.augment is not None
    assert splits.val.augment is None
    assert splits.test.augment is None


def test_cifar_files_are_read_by_torchvision(monkeypatch, tmp_path):
    folder = tmp_path / "here" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = np.random.default_rng(len(name)).integers(0, 256, (3, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [4, 9, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(NAMED["cifar10"].classes)}))
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    source = cifar_source("cifar10", tmp_path / "here")
    assert source.sizes == {"train": 15, "test": 3}
    assert source.labels["test"].tolist() == [4, 9, 1]
    assert source.read("test", np.array([2]))[0].flatten().tolist() == rows[2].tolist()


def test_absent_cifar_says_where_it_looked(tmp_path):
    text = message(DataSpec(name="cifar10", root="somewhere"), load_data)
    assert text == (
        f"cifar10 must be on this machine; looked for {tmp_path / 'somewhere' / 'cifar-10-batches-py'}. "
        "Set data.download = true, or data.root (or QPRUNE_DATA) to where it is, "
        "or to a folder with train/CLASS/NAME and test/CLASS/NAME."
    )


def test_cifar_is_looked_for_under_data_by_default(tmp_path):
    assert f"looked for {tmp_path / 'data' / 'cifar-100-python'}." in message(DataSpec(name="cifar100"), load_data)


def test_a_failed_download_says_why(monkeypatch):
    def refuse(root, train, download):
        assert download
        raise OSError("no route")

    refuse.base_folder = "cifar-10-batches-py"
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    text = message(DataSpec(name="cifar10", root="there", download=True), load_data)
    assert text == (
        f"cifar10 could not be downloaded to {Path('there').absolute()}: no route. Check the network and the room "
        "there, or put the data there yourself and set data.download = false."
    )


def test_unknown_name_gives_the_nearest():
    assert message(DataSpec(name="cifar11")) == (
        "data.name must be a named data set, 'folder', 'segmentation' or 'translation'; "
        "received 'cifar11'; nearest: 'cifar10'."
    )
    known = "camvid, cifar10, cifar100, cityscapes, digits, folder, segmentation, streets, translation"
    assert f"received 'zzz'; known are {known}." in message(DataSpec(name="zzz"))


def test_digits_take_no_root():
    assert message(DataSpec(name="digits", root="here")) == (
        "data.root must be left out for digits, which come with qprune; received 'here'."
    )


def test_a_folder_needs_a_root():
    assert message(DataSpec(name="folder")) == (
        'data.root must say where the images of data.name = "folder" are; received none. Or set QPRUNE_DATA.'
    )


def test_too_many_training_images_are_refused():
    assert message(DataSpec(name="cifar10", train_images=45001)) == (
        "data.train_images must be in 1 .. 45000 (50000 less 5000 for validation); received 45001."
    )
    assert (
        message(DataSpec(name="digits", train_images=1198)) == "data.train_images must be in 1 .. 1197; received 1198."
    )


@pytest.mark.parametrize("share", [1e-6, 0.999999])
def test_a_validation_share_without_images_is_refused(share):
    assert message(DataSpec(name="cifar10", validation=share)) == (
        f"data.validation must leave images on both sides; received {share} of 50000 images."
    )


def test_augmentation_is_checked_before_the_data_is_read():
    text = message(DataSpec(name="cifar10", augment=({"name": "RandomCrop", "sise": 32},)), load_data)
    assert text == "data.augment[0].sise: must be an argument of RandomCrop; nearest: 'size'."


def photo_folder(root, classes):
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(root / split / name / "0.png")


def test_the_environment_gives_the_default_root(monkeypatch, tmp_path):
    photo_folder(tmp_path / "sets" / "folder", ("ant", "bee"))
    monkeypatch.setenv("QPRUNE_DATA", "sets")
    assert describe(DataSpec(name="folder", validation=0)).classes == ("ant", "bee")
    assert describe(DataSpec(name="folder", validation=0, root=str(tmp_path / "sets" / "folder"))).shape == (3, 5, 7)


def test_a_named_set_may_lie_in_an_image_folder(tmp_path):
    photo_folder(tmp_path / "photos", NAMED["cifar10"].classes)
    info = describe(DataSpec(name="cifar10", root="photos", validation=0))
    assert info.mean == NAMED["cifar10"].mean
    assert info.sizes == {"train": 10, "val": 0, "test": 10}


def test_a_named_set_in_a_folder_of_other_classes_is_refused(tmp_path):
    photo_folder(tmp_path / "photos", ("ant", "bee"))
    assert message(DataSpec(name="cifar10", root="photos")) == (
        'data.root: cifar10 has 10 classes; received 2 class folders. Or set data.name = "folder".'
    )


def test_real_photos_train_from_a_folder(tmp_path):
    if not PHOTOS.exists():
        pytest.skip("the CIFAR-10 photos are not on this machine")
    with tarfile.open(PHOTOS) as archive:
        archive.extractall(tmp_path, filter="data")
    spec = DataSpec(name="cifar10", root=str(tmp_path), train_images=300, validation=0.01, augment=AUGMENT)
    assert describe(evolve(spec, train_images=None)).sizes == {"train": 49500, "val": 500, "test": 10000}
    splits = load_data(spec)
    assert np.bincount(splits.train.labels).tolist() == [30] * 10
    assert np.bincount(splits.val.labels).tolist() == [50] * 10
    images, labels = next(iter(train_loader(splits.train, batch=256, seed=1)))
    assert images.shape == (256, 3, 32, 32)
    assert labels.shape == (256,)
    pixels = torch.stack([splits.test[i][0] for i in range(0, 10000, 10)])
    assert abs(float(pixels.mean())) < 0.05
    assert abs(float(pixels.std()) - 1) < 0.05
