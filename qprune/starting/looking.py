"""`look`: what a folder of images is, by the library's own readers, and how large its images are."""

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np
from attrs import frozen

from qprune.data import describe
from qprune.data.class_file import NAME
from qprune.data.decode import read_size
from qprune.data.folders import SUFFIXES, folder_source
from qprune.data.opening import FOLDER, SEGMENTATION, TRANSLATION
from qprune.data.translation import has_two_folders
from qprune.errors import DataError
from qprune.spec import DataSpec

LOOKED_AT = 200  # images whose headers are read, spread over the training images

Size = tuple[int, int]


@frozen
class Looked:
    """What a folder of images is."""

    name: str  # of the data set in a spec: ``"folder"``, ``"segmentation"`` or ``"translation"``
    root: Path  # absolute
    classes: tuple[str, ...]  # their names; () where images are translated
    sizes: dict[str, int]  # images in ``"train"``, ``"val"`` and ``"test"``, as a run would use them
    counts: tuple[int, ...]  # training images of each class, of images with a class each
    stored: tuple[Size, ...]  # height and width of some training images
    paired: bool = True  # whether each image to translate has its own target

    @property
    def side(self) -> int:
        """The shorter side of a usual image, in pixels."""
        return int(median(min(size) for size in self.stored))

    @property
    def is_square(self) -> bool:
        """Whether all images are as high as wide."""
        return all(height == width for height, width in self.stored)

    def __str__(self) -> str:
        parts = [f"{self.sizes[split]:,} for {what}" for split, what in _PARTS if self.sizes.get(split)]
        smallest, largest = min(self.stored, key=_area), max(self.stored, key=_area)
        size = _pixels(smallest) if smallest == largest else f"{_pixels(smallest)} to {_pixels(largest)}"
        lines = [f"{self._what()} of {size} pixels: {', '.join(parts)}"]
        if self.classes:
            shown = ", ".join(self.classes[:8]) + (", ..." if len(self.classes) > 8 else "")
            each = ""
            if self.counts:
                least, most = min(self.counts), max(self.counts)
                each = f", {least:,} images each" if least == most else f", {least:,} to {most:,} images each"
            lines.append(f"{len(self.classes)} classes{each}: {shown}")
        return "\n".join(lines)

    def _what(self) -> str:
        if self.name == TRANSLATION:
            return "Pairs of images" if self.paired else "Images of two kinds"
        return "Scenes with labels" if self.name == SEGMENTATION else "Images with a class each"


_PARTS = (("train", "training"), ("val", "validation"), ("test", "test"))


def look(folder: Path) -> Looked:
    """Find out what a folder of images is, without decoding any.

    Scenes with labels have a ``classes.toml`` or folders ``images`` and ``labels``; images to translate lie in
    ``trainA`` and ``trainB``, or side by side in files of ``train``; all else are images in a folder per class.
    """
    root = Path(os.path.abspath(folder.expanduser()))  # without .., but also without following links
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. --data names the folder that the images are in.")
    if (root / NAME).exists() or (root / "train/labels").is_dir():
        return _look(SEGMENTATION, root, "images")
    if has_two_folders(root) or _images(root / "train"):
        return _look_at_pairs(root)
    counts = np.bincount(folder_source(root).labels["train"])
    if len(counts) < 2:
        raise DataError(
            f"{root / 'train'}: has one class, and there is nothing to tell apart. Add a folder of another."
        )
    return _look(FOLDER, root, "*", counts=tuple(map(int, counts)))


def _look_at_pairs(root: Path) -> Looked:
    two = has_two_folders(root)
    try:
        return _look(TRANSLATION, root, "")
    except DataError:
        if not two:
            raise
        return _look(TRANSLATION, root, "", paired=False)


def _look(name: str, root: Path, inside: str, counts: tuple[int, ...] = (), paired: bool = True) -> Looked:
    translate = "AtoB" if name == TRANSLATION else None
    info = describe(DataSpec(name, root=str(root), size=32, translate=translate, unpaired=not paired))
    first = root / ("trainA" if has_two_folders(root) else "train")
    folders = [folder for folder in sorted(first.glob(inside)) if folder.is_dir()] if inside else [first]
    stored = tuple(map(read_size, _spread(list(chain.from_iterable(map(_images, folders))))))
    if name == TRANSLATION and not has_two_folders(root):
        stored = tuple((height, width // 2) for height, width in stored)  # two lie side by side
    return Looked(name, root, info.classes, info.sizes, counts, stored, paired)


def _images(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _spread(paths: Sequence[Path]) -> Sequence[Path]:
    return paths[:: -(-len(paths) // LOOKED_AT)]


def _area(size: Size) -> int:
    return size[0] * size[1]


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
