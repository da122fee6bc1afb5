import logging
import shutil
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image

from qprune.data import describe, eval_loader, folders, load_data, loaders, train_loader
from qprune.data.decode import ImageFiles
from qprune.errors import DataError
from qprune.spec import DataSpec

SIZES = {"train": {"ant": 6, "bee": 4}, "test": {"ant": 3, "bee": 2}}


def write(path, number, shape=(5, 7)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), number, np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    numbers = count()
    for split, classes in SIZES.items():
        for name, images in classes.items():
            for i in range(images):
                write(tmp_path / "insects" / split / name / f"{i}.png", next(numbers))
    return tmp_path / "insects"


def spec(root, **options):
    return DataSpec(name="folder", root=str(root), **{"validation": 0.0} | options)


def message(root, read=describe, **options):
    with pytest.raises(DataError) as caught:
        read(spec(root, **options))
    return str(caught.value)


def test_a_folder_is_described_without_reading_its_images(root):
    write(root / "train" / "bee" / "9.png", 0).write_bytes(b"broken")
    info = describe(spec(root))
    assert info.classes == ("ant", "bee")
    assert info.shape == (3, 5, 7)
    assert info.sizes == {"train": 11, "val": 0, "test": 5}


def test_images_come_with_their_labels(root):
    splits = load_data(spec(root))
    grey = [round(float(image.mean() * 0.5 + 0.5) * 255) for image, _ in splits.train]
    assert grey == list(range(10))
    assert splits.train.labels.tolist() == [0] * 6 + [1] * 4
    assert splits.test.labels.tolist() == [0] * 3 + [1] * 2
    assert splits.val is None
    assert splits.info == describe(spec(root))


def test_images_of_every_mode_become_rgb_in_the_middle_that_is_cut_out(root):
    grey = np.full((40, 60), 51, np.uint8)
    modes = {
        "grey.png": Image.fromarray(grey),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(np.stack([grey] * 3, 2)).quantize(4),
        "cmyk.jpg": Image.fromarray(np.stack([grey] * 3, 2)).convert("CMYK"),
        "alpha.png": Image.fromarray(np.stack([grey] * 3 + [np.full_like(grey, 255)], 2)),
        "bits.png": Image.fromarray(np.zeros((40, 60), np.uint8)).convert("1"),
    }
    for name, image in modes.items():
        image.save(root / "test" / "bee" / name)
    for augment in ([], [{"name": "RandomResizedCrop", "size": 32}]):
        chosen = spec(root, size=32, resize=36, mean=(0.0,) * 3, std=(1.0,) * 3, augment=augment)
        test = load_data(chosen).test
        pixels = torch.stack([image for image, _ in test])[5:] * 255
        values = sorted(round(float(image.mean())) for image in pixels)
        assert pixels.shape == (6, 3, 32, 32)
        assert values[0] == 0
        assert all(abs(value - 51) <= 2 for value in values[1:])


def test_the_middle_of_a_strip_is_cut_out_before_it_is_resized(root):
    write(root / "test" / "bee" / "9.png", 200, shape=(2, 9000))
    image = load_data(spec(root, size=32, resize=36)).test[-1 + 6][0]
    assert image.shape == (3, 32, 32)
    assert float(image.mean() * 0.5 + 0.5) * 255 == pytest.approx(200)


@pytest.mark.parametrize("option", [{"resize": 36}, {"interpolation": "bicubic"}])
def test_what_images_are_brought_to_needs_a_size_and_a_folder(root, option):
    ((name, value),) = option.items()
    assert message(root, **option) == (
        f"data.{name} needs data.size, to which images are brought; received {value!r} alone."
    )
    with pytest.raises(DataError) as caught:
        describe(DataSpec("cifar10", size=32, **option))
    assert str(caught.value) == f"""data.{name} is of data.name = "folder"; received {value!r} with 'cifar10'."""


def test_pixels_are_centred_with_a_half_unless_told(root):
    assert load_data(spec(root)).test[0][0][0, 0, 0] == pytest.approx((10 / 255 - 0.5) / 0.5)
    told = load_data(spec(root, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    assert told.test[0][0][2, 4, 6] == pytest.approx((10 / 255 - 0.3) / 0.6)


def test_a_folder_may_have_its_own_validation_images(root):
    for i, name in enumerate(("ant", "bee", "bee")):
        write(root / "val" / name / f"{i}.png", 100 + i)
    splits = load_data(spec(root, validation=0.5))
    assert splits.info.sizes == {"train": 10, "val": 3, "test": 5} == describe(spec(root, validation=0.5)).sizes
    assert splits.val.labels.tolist() == [0, 1, 1]


def test_size_takes_images_of_differing_sizes(root):
    write(root / "train" / "bee" / "9.png", 0, shape=(3, 11))
    for size, shape in ((4, (3, 4, 4)), ([4, 6], (3, 4, 6))):
        splits = load_data(spec(root, size=size))
        assert splits.train[10][0].shape == splits.info.shape == shape


def test_differing_sizes_without_size_name_the_file(root):
    path = write(root / "train" / "bee" / "9.png", 0, shape=(3, 11))
    sentence = (
        f"{path}: all images must have one size, 5x7 (height x width) as the first has; received 3x11. "
        "Set data.size to resize every image to a square."
    )
    assert message(root, load_data) == sentence


def test_a_large_set_is_decoded_as_it_is_used(root, monkeypatch):
    small = load_data(spec(root))
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 0)
    large = load_data(spec(root))
    assert isinstance(large.train.images, ImageFiles)
    for (ours, _), (theirs, _) in zip(
        train_loader(small.train, batch=4), train_loader(large.train, batch=4), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_large_set_is_checked_for_its_sizes_before_training(root, monkeypatch):
    path = write(root / "test" / "bee" / "9.png", 0, shape=(3, 11))
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 0)
    assert message(root, load_data).startswith(f"{path}: all images must have one size, 5x7")


def test_a_broken_file_is_named_before_training(root):
    path = write(root / "test" / "bee" / "9.png", 0)
    path.write_bytes(path.read_bytes()[:40])
    assert message(root, load_data).startswith(f"{path}: must be a whole, readable image; ")


def test_a_missing_root_is_named(root):
    assert message(root / "none") == (
        f"{root / 'none'}: data.root must be a folder with root/train/CLASS/NAME and root/test/CLASS/NAME "
        "(root/val is optional); there is no such folder."
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_named(root, split):
    shutil.rmtree(root / split)
    other = {"train": "test", "test": "train"}[split]
    assert message(root) == (
        f"{root}: an image folder needs root/train/CLASS/NAME and root/test/CLASS/NAME (root/val is optional); "
        f"{split} is missing, found {other}."
    )


def test_without_test_images_those_of_val_report_and_none_of_them_chooses(root, caplog):
    (root / "test").rename(root / "val")
    with caplog.at_level(logging.INFO):
        splits = load_data(spec(root, validation=0.5))
    assert splits.info.sizes == {"train": 5, "val": 5, "test": 5}
    assert splits.test.labels.tolist() == [0] * 3 + [1] * 2
    assert caplog.messages == [f"{root} has no folder test: the images in val report, and none of them chooses"]


@pytest.mark.parametrize("name", ["valid", "validation", "dev"])
def test_a_validation_folder_of_another_name_is_refused(root, name):
    (root / name).mkdir()
    assert message(root) == f"{root / name}: the validation folder must be named val; rename it or move it away."


def test_a_split_without_classes_is_refused(root):
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    assert message(root).startswith(f"{root / 'train'}: must hold one folder per class; found none.")
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    (root / "train" / "ant").mkdir()
    write(root / "train" / "ant" / "0.png", 0)
    assert message(root).startswith(f"{root / 'test'}: must hold images in class folders; found none.")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_is_refused(root, split):
    (root / split / "ant" / "notes").mkdir()
    for path in (root / split / "ant").glob("*.png"):
        path.unlink()
    assert message(root).startswith(f"{root / split / 'ant'}: a class folder must hold images (.bmp .jpeg .jpg ")


def test_a_class_that_training_never_sees_is_refused(root):
    path = write(root / "test" / "wasp" / "0.png", 0)
    assert message(root) == (
        f"{path.parent}: every class must be in train too; 'wasp' is not. Add or remove the folder."
    )


def test_files_that_are_no_images_are_counted_in_the_log(root, caplog):
    (root / "train" / "ant" / "notes.txt").write_text("six ants")
    (root / "train" / "ant" / ".hidden").write_text("")
    with caplog.at_level(logging.WARNING):
        describe(spec(root))
    path = root / "train" / "ant" / "notes.txt"
    assert caplog.messages == [f"1 files are no images and are not used, for example {path}"]


def test_statistics_need_one_number_per_channel(root):
    assert message(root, mean=(0.5,), std=(0.5,)) == ("data.mean must have one number per channel, 3; received [0.5].")


def test_photos_of_a_small_set_are_decoded_once_and_kept(root, monkeypatch):
    """32 x 7 of 10 images: 3 x 32 x 7 bytes each."""
    for number, path in enumerate(sorted(root.glob("*/*/*.png"))):
        write(path, number, (32, 7))
    options = {"size": 4, "resize": 5, "augment": [{"name": "RandomResizedCrop", "size": 4}]}
    kept = load_data(spec(root, **options)).train
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 10 * 3 * 32 * 7)
    asked = load_data(spec(root, **options)).train
    assert (kept.in_memory, asked.in_memory) == (True, False)
    keys = [*range(10), *((1, index) for index in range(10))]
    expected = [kept[key][0] for key in keys]
    for key, image in zip(keys, expected, strict=True):
        assert torch.equal(asked[key][0], image)
    for path in root.glob("train/*/*.png"):
        path.unlink()
    assert all(torch.equal(kept[key][0], image) for key, image in zip(keys, expected, strict=True))


def test_of_a_large_set_few_headers_are_read(root, monkeypatch):
    read, really = [], folders.read_size
    monkeypatch.setattr(folders, "read_size", lambda path: read.append(path) or really(path))
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 2 * 3 * 5 * 7)
    augment = [{"name": "RandomResizedCrop", "size": 4}]
    assert not load_data(spec(root, size=4, resize=5, augment=augment)).train.in_memory
    assert len([path for path in read if "train" in path.parts]) <= 4


def test_files_that_are_decoded_as_they_are_used_get_loader_processes(root, monkeypatch):
    monkeypatch.setattr(loaders, "choose_workers", lambda in_memory: 0 if in_memory else 1)
    splits = load_data(spec(root))
    assert [make(splits.train, batch=5).num_workers for make in (train_loader, eval_loader)] == [0, 0]
    monkeypatch.setattr(folders, "MEMORY_LIMIT", 1)
    splits = load_data(spec(root))
    assert [make(splits.train, batch=5).num_workers for make in (train_loader, eval_loader)] == [1, 1]
    assert train_loader(splits.train, batch=5, workers=0).num_workers == 0
    assert train_loader([(torch.zeros(3, 5, 7), 1)], batch=1).num_workers == 0  # not ours to send to a process
