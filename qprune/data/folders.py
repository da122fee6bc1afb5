"""Image folders: ``root/{train,test}/CLASS/NAME``, with ``root/val`` where the set has its own validation images."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attrs import frozen

from qprune.data.decode import ImageFiles, Size, check_size, height_width, read_images, read_size
from qprune.data.source import Images, Source
from qprune.errors import DataError

logger = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Larger sets are decoded as they are used.
MEMORY_LIMIT = 2**30

_LAYOUT = "root/train/CLASS/NAME and root/test/CLASS/NAME (root/val is optional)"
_MISNAMED = ("valid", "validation", "dev")


@frozen(eq=False)
class _Split:
    paths: tuple[Path, ...]
    labels: np.ndarray


def folder_source(root: Path, size: Size | None = None) -> Source:
    """List an image folder: classes are the folders in ``train``, sorted; only the header of one image is read."""
    _check_layout(root)
    classes = tuple(path.name for path in _folders(root / "train"))
    if not classes:
        raise DataError(f"{root / 'train'}: must hold one folder per class; found none. The layout is {_LAYOUT}.")
    names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    splits = {name: _list_split(root / name, classes) for name in names}
    height, width = height_width(size) if size else read_size(splits["train"].paths[0])

    def read(split: str, indices: np.ndarray) -> Images:
        return _read([splits[split].paths[index] for index in indices], height, width, size)

    labels = {name: split.labels for name, split in splits.items()}
    return Source(classes=classes, shape=(3, height, width), labels=labels, read=read)


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"{root}: data.root must be a folder with {_LAYOUT}; there is no such folder.")
    for name in ("train", "test"):
        if not (root / name).is_dir():
            found = ", ".join(path.name for path in _folders(root)[:5]) or "no folders"
            hint = " Rename val to test to report on it." if found == "train, val" else ""
            raise DataError(f"{root}: an image folder needs {_LAYOUT}; {name} is missing, found {found}.{hint}")
    check_val(root)


def check_val(root: Path) -> None:
    """Refuse a validation folder of another name, which would be passed over."""
    for name in _MISNAMED:
        if (root / name).is_dir():
            raise DataError(f"{root / name}: the validation folder must be named val; rename it or move it away.")


def _list_split(folder: Path, classes: tuple[str, ...]) -> _Split:
    paths: list[Path] = []
    labels: list[int] = []
    for path in _folders(folder):
        if path.name not in classes:
            raise DataError(
                f"{path}: every class must be in train too; {path.name!r} is not. Add or remove the folder."
            )
        files = _images(path)
        paths += files
        labels += [classes.index(path.name)] * len(files)
    if not paths:
        raise DataError(f"{folder}: must hold images in class folders; found none. The layout is {_LAYOUT}.")
    return _Split(tuple(paths), np.array(labels, np.int64))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    images = [path for path in visible if path.suffix.lower() in SUFFIXES]
    if not images:
        raise DataError(f"{folder}: a class folder must hold images ({' '.join(SUFFIXES)}); found none of them.")
    if len(images) < len(visible):
        other = next(path for path in visible if path.suffix.lower() not in SUFFIXES)
        logger.warning("%d files are no images and are not used, for example %s", len(visible) - len(images), other)
    return images


def _read(paths: Sequence[Path], height: int, width: int, size: Size | None) -> Images:
    if len(paths) * height * width * 3 < MEMORY_LIMIT:
        return read_images(paths, height, width, size)
    if size is None:
        for path in paths:
            check_size(path, read_size(path), (height, width))
    return ImageFiles(paths, height, width, size)
