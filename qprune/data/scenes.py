"""Scenes on disk: images with a label map each, in folders of two layouts."""

from collections.abc import Sequence
from pathlib import Path

from qprune.data.class_file import read_class_file
from qprune.data.folders import SUFFIXES, check_val
from qprune.data.info import IGNORE, NAMED
from qprune.data.labels import LabelIds
from qprune.data.matching import by_name, match
from qprune.data.palettes import Colour
from qprune.data.pictures import LabelFiles, PhotoFiles
from qprune.data.source import PairSource
from qprune.errors import DataError

LAYOUT = "root/{train,test}/{images,labels}/NAME (root/val is optional; label maps are PNG)"
_WORDS = ("image", "label map")
# The ids of gtFine_labelIds that count, in the order of the 19 classes (Cordts et al., 2016).
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_PARTS = {"train": "train", "test": "val"}  # the labels of its test images are not public


def segmentation_source(root: Path) -> PairSource:
    """List a folder of scenes with a ``classes.toml``; one header is read."""
    if not root.is_dir():
        raise DataError(f"{root}: data.root must be a folder with classes.toml and {LAYOUT}; there is no such folder.")
    classes = read_class_file(root)
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise DataError(f"{root}: a folder of scenes needs {LAYOUT}; {split} is missing.")
    check_val(root)
    splits = [split for split in ("train", "val", "test") if (root / split).is_dir()]
    parts = {split: _by_folder(root / split, LabelIds(classes.labels)) for split in splits}
    return _source(classes.names, classes.palette, parts)


def camvid_source(root: Path) -> PairSource:
    """List CamVid (Brostow et al., 2009) with 11 classes, ids 0 to 10 and 11 for void."""
    _must_be_here("camvid", [root / split / side for split in NAMED["camvid"].sizes for side in ("images", "labels")])
    ids = LabelIds({i: i for i in range(11)} | {11: IGNORE})
    parts = {split: _by_folder(root / split, ids) for split in NAMED["camvid"].sizes}
    return _known("camvid", root, parts)


def cityscapes_source(root: Path) -> PairSource:
    """List Cityscapes (Cordts et al., 2016) as it is handed out; ids outside the 19 classes are void."""
    folders = ("leftImg8bit", "gtFine")
    _must_be_here("cityscapes", [root / folder / split for folder in folders for split in ("train", "val")])
    ids = LabelIds({number: label for label, number in enumerate(_CITYSCAPES_IDS)}, strict=False)
    parts = {}
    for part, split in _CITYSCAPES_PARTS.items():
        where = (root / "leftImg8bit" / split, root / "gtFine" / split)
        endings = ("_leftImg8bit.png", "_gtFine_labelIds.png")
        files = [by_name(f.glob(f"*/*{ending}"), ending) for f, ending in zip(where, endings, strict=True)]
        photos, labels = match(files[0], files[1], _WORDS, where)
        parts[part] = PhotoFiles(photos), LabelFiles(labels, ids)
    return _known("cityscapes", root, parts)


def _by_folder(folder: Path, ids: LabelIds) -> tuple[PhotoFiles, LabelFiles]:
    where = (folder / "images", folder / "labels")
    for path in where:
        if not path.is_dir():
            raise DataError(f"{path}: there is no such folder. The layout is {LAYOUT}.")
    images = by_name(path for path in where[0].iterdir() if path.suffix.lower() in SUFFIXES)
    labels = by_name(path for path in where[1].iterdir() if path.suffix.lower() == ".png")
    photos, maps = match(images, labels, _WORDS, where)
    return PhotoFiles(photos), LabelFiles(maps, ids)


def _source(
    classes: tuple[str, ...], palette: tuple[Colour, ...], parts: dict[str, tuple[PhotoFiles, LabelFiles]]
) -> PairSource:
    return PairSource(classes, palette, (3, *parts["train"][0].size_of(0)), dict(parts))


def _known(name: str, root: Path, parts: dict[str, tuple[PhotoFiles, LabelFiles]]) -> PairSource:
    for split, (photos, _) in parts.items():
        expected = NAMED[name].sizes[split]
        if len(photos) != expected:
            raise DataError(
                f"{root}: {name} has {expected} images in {split!r}; found {len(photos)}. Complete it, or bring what "
                'there is into the layout of data.name = "segmentation".'
            )
    return _source(NAMED[name].classes, NAMED[name].palette, parts)


def _must_be_here(name: str, folders: Sequence[Path]) -> None:
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(
            f"{name} must be on this machine; looked for {missing[0].absolute()}. Set data.root (or QPRUNE_DATA) to "
            "where it is."
        )
