"""What a folder is, is found by the readers that a training uses."""

from pathlib import Path

import pytest
from folders_of_images import noise, photos, scenes

from qprune.errors import DataError
from qprune.starting import look


def test_a_folder_of_classes(tmp_path: Path) -> None:
    looked = look(photos(tmp_path, {"crow": 7, "owl": 11}))
    assert (looked.name, looked.classes, looked.counts) == ("folder", ("crow", "owl"), (7, 11))
    assert looked.sizes == {"train": 16, "val": 2, "test": 2}  # a tenth of each class chooses
    assert (looked.side, looked.is_square) == (24, False)
    assert str(looked).splitlines() == [
        "Images with a class each of 20x30 to 30x30 pixels: 16 for training, 2 for validation, 2 for test",
        "2 classes, 7 to 11 images each: crow, owl",
    ]


def test_scenes_with_labels(tmp_path: Path) -> None:
    looked = look(scenes(tmp_path))
    assert (looked.name, looked.classes, looked.stored[0]) == ("segmentation", ("road", "sky", "tree"), (40, 70))
    assert str(looked).startswith("Scenes with labels of 40x70 pixels: ")


def test_images_side_by_side_are_pairs(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(10):
            noise(tmp_path / split / f"{number}.png", 16, 48)
    looked = look(tmp_path)
    assert (looked.name, looked.paired, looked.stored[0]) == ("translation", True, (16, 24))


@pytest.mark.parametrize("same", [True, False])
def test_two_folders_are_pairs_where_names_match(tmp_path: Path, same: bool) -> None:
    for split in ("train", "test"):
        for number in range(10):
            noise(tmp_path / f"{split}A" / f"{number}.png", 16, 24)
            noise(tmp_path / f"{split}B" / f"{number if same else number + 5}.png", 16, 24)
    looked = look(tmp_path)
    assert (looked.name, looked.paired) == ("translation", same)


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder. --data names the folder"):
        look(tmp_path / "nowhere")


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train: has one class, and there is nothing to tell apart"):
        look(photos(tmp_path, {"crow": 7}))


def test_no_images_and_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an image folder needs root/train/CLASS/NAME"):
        look(tmp_path)
    for name in ("train/crow", "train/owl", "test/crow"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match="a class folder must hold images"):
        look(tmp_path)


def test_scenes_without_the_names_of_their_classes(tmp_path: Path) -> None:
    (scenes(tmp_path) / "classes.toml").unlink()
    with pytest.raises(DataError, match=r"must name the classes of data.name = .segmentation"):
        look(tmp_path)
