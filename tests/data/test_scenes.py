import shutil

import numpy as np
import pytest
import torch
from attrs import evolve
from PIL import Image

from qprune.data import IGNORE, NAMED, describe, folders, load_data, train_loader
from qprune.data.pictures import Chosen
from qprune.errors import DataError
from qprune.spec import DataSpec

FLIP = {"name": "RandomHorizontalFlip"}


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def spec(root, name="segmentation", **options):
    return DataSpec(name, root=str(root), **options)


def message(given, read=load_data):
    with pytest.raises(DataError) as caught:
        read(given)
    return str(caught.value)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_of_scenes_is_described_without_reading_its_images(scenes):
    (scenes / "train" / "images" / "3.png").write_bytes(b"broken")
    info = describe(spec(scenes))
    assert (info.kind, info.classes, info.palette[1]) == ("segmentation", ("road", "sky", "car"), (70, 130, 180))
    assert info.shape == (3, 6, 10)
    assert info.sizes == {"train": 7, "val": 2, "test": 3}
    assert (info.mean, info.std) == ((0.5,) * 3, (0.5,) * 3)


def test_images_come_with_their_labels(scenes):
    splits = load_data(spec(scenes))
    assert splits.info == describe(spec(scenes))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [7, 2, 3]
    for i in range(7):
        image, labels = splits.train[i]
        expected = pixels(scenes / "train" / "labels" / f"{i}.png")
        assert labels.tolist() == np.where(expected == 9, IGNORE, expected).tolist()
        stored = pixels(scenes / "train" / "images" / f"{i}.png")
        torch.testing.assert_close(image[1] * 127.5 + 127.5, torch.tensor(stored[..., 1], dtype=torch.float32))


def test_only_training_is_augmented(scenes):
    splits = load_data(spec(scenes, augment=[FLIP]), seed=5)
    assert splits.train.augment is not None
    assert splits.train.seed == 5
    assert splits.val.augment is splits.test.augment is None


def test_a_share_is_held_out_where_the_set_has_no_validation_images(scenes):
    shutil.rmtree(scenes / "val")
    splits = load_data(spec(scenes, validation=0.3, train_images=4))
    assert splits.info.sizes == {"train": 4, "val": 2, "test": 3} == describe(splits_spec(scenes)).sizes
    train, val = ({image.sum().item() for image, _ in part} for part in (splits.train, splits.val))
    assert len(train | val) == 6


def splits_spec(scenes):
    return spec(scenes, validation=0.3, train_images=4)


def test_size_takes_images_of_differing_sizes(scenes):
    write(scenes / "train" / "images" / "9.png", np.zeros((5, 7, 3)))
    write(scenes / "train" / "labels" / "9.png", np.zeros((5, 7)))
    for augment in ((), (FLIP,)):
        splits = load_data(spec(scenes, size=[4, 9], augment=augment))
        assert splits.info.shape == (3, 4, 9)
        assert {(x.shape, y.shape) for x, y in (splits.train[(0, i)] for i in range(8))} == {((3, 4, 9), (4, 9))}


def test_augmentation_sees_images_as_they_are_stored(scenes):
    splits = load_data(spec(scenes, size=4, augment=[{"name": "RandomCrop", "size": [6, 9]}]))
    assert splits.train.inputs[0].shape == (3, 6, 10)
    assert splits.test.inputs[0].shape == (3, 4, 4)
    assert splits.train[(0, 0)][0].shape == splits.test[0][0].shape == (3, 4, 4)


def test_a_large_set_is_decoded_as_it_is_used(scenes, monkeypatch):
    small = load_data(spec(scenes, augment=[FLIP]))
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 0)
    large = load_data(spec(scenes, augment=[FLIP]))
    assert isinstance(large.train.inputs, Chosen)
    assert isinstance(small.train.inputs, list)
    assert (small.train.in_memory, large.train.in_memory) == (True, False)
    for ours, theirs in zip(train_loader(small.train, batch=4), train_loader(large.train, batch=4), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_two_workers_give_the_epoch_of_none(scenes, monkeypatch):
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 0)
    data = load_data(spec(scenes, size=5, augment=[FLIP, {"name": "RandomTranslate", "pixels": [2, 3]}])).train
    alone, helped = (list(train_loader(data, batch=3, workers=workers)) for workers in (0, 2))
    assert all(torch.equal(a, b) for x, y in zip(alone, helped, strict=True) for a, b in zip(x, y, strict=True))


def test_a_turned_photo_is_set_upright_beside_its_labels(scenes):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(np.arange(180, dtype=np.uint8).reshape(10, 6, 3))
    photo.save(scenes / "test" / "images" / "1.png", exif=exif)
    assert load_data(spec(scenes)).test[1][0].shape == (3, 6, 10)


@pytest.mark.parametrize(
    ("gone", "there"),
    [("labels/3.png", ("images/3.png", "image", "label map", "labels")),
     ("images/3.png", ("labels/3.png", "label map", "image", "images"))],
)  # fmt: skip
def test_a_file_without_partner_is_named(scenes, gone, there):
    (scenes / "train" / gone).unlink()
    left, one, other, folder = there
    assert message(spec(scenes), describe) == (
        f"{scenes / 'train' / left}: every {one} must have its {other}, of the same name; "
        f"{scenes / 'train' / folder} has none. 1 of 7 have none: add them, or take these away."
    )


def test_an_image_and_labels_of_two_sizes_are_named(scenes):
    path = write(scenes / "test" / "labels" / "1.png", np.zeros((6, 9)))
    assert message(spec(scenes, size=4)) == (
        f"{path}: must be of one size with its partner, 6x10 (height x width); received 6x9."
    )


def test_differing_sizes_without_size_name_the_file(scenes):
    path = write(scenes / "test" / "images" / "1.png", np.zeros((5, 7, 3)))
    assert message(spec(scenes)) == (
        f"{path}: must be of one size with the others, 6x10 (height x width); received 5x7. Or set data.size."
    )


def test_a_label_outside_the_classes_is_named_before_training(scenes):
    path = write(scenes / "val" / "labels" / "1.png", np.full((6, 10), 3))
    assert message(spec(scenes)) == f"{path}: labels must be in 0 .. 2, or 9 or 255 for void; received 3."


def test_faulty_headers_of_a_large_set_are_named_before_training(scenes, monkeypatch):
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 0)
    path = write(scenes / "train" / "labels" / "1.png", np.zeros((6, 10, 3)))
    assert message(spec(scenes)).startswith(f"{path}: labels must be 8-bit class ids")


def test_a_truncated_image_is_named_before_training(scenes):
    path = scenes / "test" / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:-60])
    assert message(spec(scenes)).startswith(f"{path}: must be a whole, readable image; ")


@pytest.mark.parametrize("missing", ["test", "train/images", "val/labels"])
def test_a_missing_folder_is_named(scenes, missing):
    shutil.rmtree(scenes / missing)
    text = message(spec(scenes), describe)
    assert text.startswith(f"{scenes if missing == 'test' else scenes / missing}: ")
    assert "root/{train,test}/{images,labels}/NAME" in text


def test_a_missing_root_is_named(tmp_path):
    assert message(spec(tmp_path / "none"), describe).endswith("there is no such folder.")


def test_a_validation_folder_of_another_name_is_refused(scenes):
    (scenes / "val").rename(scenes / "valid")
    assert message(spec(scenes), describe) == (
        f"{scenes / 'valid'}: the validation folder must be named val; rename it or move it away."
    )


def test_an_empty_split_is_named(scenes):
    for path in (*(scenes / "test").glob("*/*.png"),):
        path.unlink()
    assert message(spec(scenes), describe) == f"{scenes / 'test' / 'images'}: must hold one file per image; found none."


def test_two_images_of_one_name_are_refused(scenes):
    path = write(scenes / "train" / "images" / "3.bmp", np.zeros((6, 10, 3)))
    assert message(spec(scenes), describe) == (
        f"{path.with_suffix('.png')}: names must differ in more than their suffix, as 3.bmp has it too."
    )


def few_of(monkeypatch, name, **sizes):
    monkeypatch.setitem(NAMED, name, evolve(NAMED[name], sizes={"val": 0} | sizes, shape=(3, 6, 10)))


def test_camvid_counts_eleven_classes_and_void(tmp_path, monkeypatch):
    few_of(monkeypatch, "camvid", train=2, val=1, test=1)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for i in range(count):
            write(tmp_path / "data" / "camvid" / split / "images" / f"{i}.jpg", np.full((6, 10, 3), 50))
            write(tmp_path / "data" / "camvid" / split / "labels" / f"{i}.png", np.arange(60).reshape(6, 10) % 12)
    splits = load_data(DataSpec("camvid"))
    assert splits.train[1][1].flatten().tolist() == [i % 12 if i % 12 < 11 else 255 for i in range(60)]
    (tmp_path / "data" / "camvid" / "train" / "images" / "1.jpg").unlink()
    (tmp_path / "data" / "camvid" / "train" / "labels" / "1.png").unlink()
    assert message(DataSpec("camvid")) == (
        "data/camvid: camvid has 2 images in 'train'; found 1. Complete it, or bring what there is into the layout of "
        'data.name = "segmentation".'
    )


def cityscapes(root, name="city_000000"):
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            write(root / "leftImg8bit" / split / "city" / f"{name}_{i}_leftImg8bit.png", np.full((6, 10, 3), 51))
            labels = root / "gtFine" / split / "city" / f"{name}_{i}_gtFine_labelIds.png"
            write(labels, np.arange(60).reshape(6, 10) % 35)
            write(labels.with_name(f"{name}_{i}_gtFine_color.png"), np.zeros((6, 10, 3)))
    return root


def test_cityscapes_is_read_as_it_is_handed_out(tmp_path, monkeypatch):
    few_of(monkeypatch, "cityscapes", train=2, test=1)
    splits = load_data(spec(cityscapes(tmp_path / "sets"), "cityscapes", validation=0))
    assert splits.info.sizes == {"train": 2, "val": 0, "test": 1}
    image, labels = splits.test[0]
    torch.testing.assert_close(image, torch.full((3, 6, 10), 0.2))
    ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
           28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
    assert labels.flatten().tolist() == [ids.get(i % 35, 255) for i in range(60)]
    assert splits.info.classes[11] == "person"


def test_named_scenes_are_described_without_the_data():
    info = describe(DataSpec("cityscapes", size=[256, 512], validation=0))
    assert (info.shape, info.sizes) == ((3, 256, 512), {"train": 2975, "val": 0, "test": 500})
    assert (len(info.classes), len(info.palette), info.mean, info.std) == (19, 19, (0.0,) * 3, (1.0,) * 3)
    assert describe(DataSpec("cityscapes")).sizes["val"] == 298
    info = describe(DataSpec("camvid"))
    assert (info.shape, info.sizes) == ((3, 240, 320), {"train": 367, "val": 101, "test": 233})
    assert len(info.classes) == len(info.palette) == 11


@pytest.mark.parametrize(("name", "folder"), [("camvid", "train/images"), ("cityscapes", "leftImg8bit/train")])
def test_absent_scenes_say_where_they_were_looked_for(tmp_path, name, folder):
    assert message(DataSpec(name, root="sets")) == (
        f"{name} must be on this machine; looked for {tmp_path / 'sets' / folder}. "
        "Set data.root (or QPRUNE_DATA) to where it is."
    )


def test_a_named_set_of_another_size_is_refused(tmp_path, monkeypatch):
    few_of(monkeypatch, "cityscapes", train=2, test=1)
    monkeypatch.setitem(NAMED, "cityscapes", evolve(NAMED["cityscapes"], shape=(3, 12, 20)))
    text = message(spec(cityscapes(tmp_path), "cityscapes", validation=0))
    assert text.endswith(
        "must be of one size with the others, 12x20 (height x width); received 6x10. Or set data.size."
    )
