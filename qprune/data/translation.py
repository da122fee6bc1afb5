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
    """Whether ``root`` has a ``trainA`` folder.

    Example:
        >>> has_two_folders(Path("horses_and_zebras"))
        True
    """
    return (root / "trainA").is_dir()


def translation_source(root: Path, unpaired: bool = False) -> PairSource:
    """List images of two kinds; one header is read.

    Args:
        root: folder in one of the two layouts.
        unpaired: A and B need no equal names and no equal number.

    Raises:
        DataError: for a missing or empty folder, or a file without partner; the path is named.

    Example:
        >>> translation_source(Path("horses_and_zebras"), unpaired=True).matched
        False
    """
    if not root.is_dir():
        raise DataError(f"{root}: data.root must be a folder with {LAYOUT}; there is no such folder.")
    listed = _two_folders if has_two_folders(root) else _side_by_side
    parts = {split: listed(root, split, unpaired) for split in ("train", "val", "test") if _is_there(root, split)}
    for split in ("train", "test"):
        if split not in parts:
            raise DataError(f"{root}: pairs of images need {LAYOUT}; {split} is missing.")
    return PairSource((), (), (3, *parts["train"][0].size_of(0)), dict(parts), matched=not unpaired)


def _is_there(root: Path, split: str) -> bool:
    names = (f"{split}A", f"{split}B") if has_two_folders(root) else (split,)
    return any((root / name).is_dir() for name in names)


def _two_folders(root: Path, split: str, unpaired: bool) -> tuple[PhotoFiles, PhotoFiles]:
    folders = (root / f"{split}A", root / f"{split}B")
    a, b = (_images(folder) for folder in folders)
    if unpaired:
        return PhotoFiles(list(a.values())), PhotoFiles(list(b.values()))
    first, second = match(a, b, ("image of A", "image of B"), folders)
    return PhotoFiles(first), PhotoFiles(second)


def _side_by_side(root: Path, split: str, unpaired: bool) -> tuple[PhotoFiles, PhotoFiles]:
    paths = list(_images(root / split).values())
    return PhotoFiles(paths, half=0), PhotoFiles(paths, half=1)


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder. The layout is {LAYOUT}.")
    images = by_name(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        raise DataError(f"{folder}: must hold images ({' '.join(SUFFIXES)}); found none of them.")
    return images
