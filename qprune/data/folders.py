"""Image folders: ``root/{train,test}/CLASS/NAME``, with ``root/val`` where the set has its own validation images."""

import logging
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from attrs import evolve, frozen

from qprune.data.decode import Frame, ImageFiles, Photos, check_size, height_width, read_images, read_size
from qprune.data.source import Images, Source
from qprune.errors import DataError
from qprune.spec import DataSpec

logger = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Larger sets are decoded as they are used.
MEMORY_LIMIT = 2**30

_LAYOUT = "root/train/CLASS/NAME and root/test/CLASS/NAME (root/val is optional)"
_PLAIN = DataSpec("folder", root=".")  # images in the size in which they are stored
_MISNAMED = ("valid", "validation", "dev")


@frozen(eq=False)
class _Split:
    paths: tuple[Path, ...]
    labels: np.ndarray


def folder_source(root: Path, spec: DataSpec = _PLAIN) -> Source:
    """List an image folder: classes are the folders in ``train``, sorted; only the header of one image is read.

    Without a folder ``test`` that of ``val`` reports, as in ImageNet, whose test images have no public classes.
    """
    _check_layout(root)
    classes = tuple(path.name for path in _folders(root / "train"))
    if not classes:
        raise DataError(f"{root / 'train'}: must hold one folder per class; found none. The layout is {_LAYOUT}.")
    folders = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    if "test" not in folders:
        folders["test"] = folders.pop("val")
        logger.info("%s has no folder test: the images in val report, and none of them chooses", root)
    splits = {name: _list_split(folder, classes) for name, folder in folders.items()}
    height, width = height_width(spec.size) if spec.size else read_size(splits["train"].paths[0])
    frame = Frame.of(spec, (height, width)) if spec.size else None

    def paths(split: str, indices: np.ndarray) -> list[Path]:
        return [splits[split].paths[index] for index in indices]

    def read(split: str, indices: np.ndarray) -> Images:
        return _read(paths(split, indices), height, width, frame)

    def photos(split: str, indices: np.ndarray) -> Photos:
        assert frame is not None
        files = Photos(paths(split, indices), frame)
        return evolve(files, decoded=[files.stored(i) for i in range(len(files))]) if _fits(files.paths) else files

    labels = {name: split.labels for name, split in splits.items()}
    source = Source(classes=classes, shape=(3, height, width), labels=labels, read=read)
    if spec.resize is None:
        return source
    return evolve(source, photos=photos, stored_shape=(3, *read_size(splits["train"].paths[0])))


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"{root}: data.root must be a folder with {_LAYOUT}; there is no such folder.")
    for name, instead in (("train", "train"), ("test", "val")):
        if not (root / name).is_dir() and not (root / instead).is_dir():
            found = ", ".join(path.name for path in _folders(root)[:5]) or "no folders"
            raise DataError(f"{root}: an image folder needs {_LAYOUT}; {name} is missing, found {found}.")
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


def _read(paths: Sequence[Path], height: int, width: int, frame: Frame | None) -> Images:
    if len(paths) * height * width * 3 < MEMORY_LIMIT:
        return read_images(paths, height, width, frame)
    if frame is None:
        for path in paths:
            check_size(path, read_size(path), (height, width))
    return ImageFiles(paths, height, width, frame)


def _fits(paths: Sequence[Path]) -> bool:
    """Whether images as they are stored stay below the limit; of a set that does not, few headers are read."""
    taken = accumulate(3 * height * width for height, width in map(read_size, paths))
    return all(taken_so_far < MEMORY_LIMIT for taken_so_far in taken)
