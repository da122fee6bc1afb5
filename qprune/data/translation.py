"""Images of two kinds, A and B: in folders of their own, or side by side in one file."""

from pathlib import Path

from qprune.data.folders import SUFFIXES
from qprune.data.matching import by_name, match
from qprune.data.pictures import PhotoFiles
from qprune.data.source import PairSource
from qprune.errors import DataError

LAYOUT = (
    "root/{trainA,trainB,testA,testB}/NAME (valA and valB are optional), or files with A on the left and B on the "
    "right in root/{train,test}/NAME (root/val is optional)"
)


def has_two_folders(root: Path) -> bool:
    """Whether images of A and B lie in folders of their own."""
    return (root / "trainA").is_dir()


def translation_source(root: Path, unpaired: bool = False) -> PairSource:
    """List images of two kinds; one header is read."""
    if not root.is_dir():
        raise DataError(f"{root}: data.root must be a folder with {LAYOUT}; there is no such folder.")
    two = has_two_folders(root)
    parts = {}
    for split in ("train", "val", "test"):
        if any((root / name).is_dir() for name in ((f"{split}A", f"{split}B") if two else (split,))):
            parts[split] = _two_folders(root, split, unpaired) if two else _halves(root / split)
    for split in ("train", "test"):
        if split not in parts:
            raise DataError(f"{root}: pairs of images need {LAYOUT}; {split} is missing.")
    return PairSource((), (), (3, *parts["train"][0].size_of(0)), dict(parts), matched=not unpaired)


def _two_folders(root: Path, split: str, unpaired: bool) -> tuple[PhotoFiles, PhotoFiles]:
    folders = (root / f"{split}A", root / f"{split}B")
    a, b = (_images(folder) for folder in folders)
    if unpaired:
        return PhotoFiles(list(a.values())), PhotoFiles(list(b.values()))
    first, second = match(a, b, ("image of A", "image of B"), folders)
    return PhotoFiles(first), PhotoFiles(second)


def _halves(folder: Path) -> tuple[PhotoFiles, PhotoFiles]:
    paths = list(_images(folder).values())
    return PhotoFiles(paths, half=0), PhotoFiles(paths, half=1)


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder. The layout is {LAYOUT}.")
    images = by_name(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        raise DataError(f"{folder}: must hold images ({' '.join(SUFFIXES)}); found none of them.")
    return images
