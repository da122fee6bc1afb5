"""Files that belong together by their names."""

from collections.abc import Iterable
from pathlib import Path

from qprune.errors import DataError


def by_name(paths: Iterable[Path], ending: str = "") -> dict[str, Path]:
    """Files under their names, without the ending (or, where none is given, the suffix); hidden ones left out."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in paths if not path.name.startswith(".")):
        name = path.name.removesuffix(ending or path.suffix)
        if name in found:
            raise DataError(f"{path}: names must differ in more than their suffix, as {found[name].name} has it too.")
        found[name] = path
    return found


def match(
    first: dict[str, Path], second: dict[str, Path], words: tuple[str, str], folders: tuple[Path, Path]
) -> tuple[list[Path], list[Path]]:
    """Two lists of files with equal names at equal places, sorted by name."""
    if not first:
        raise DataError(f"{folders[0]}: must hold one file per {words[0]}; found none.")
    _check_partners(first, second, words, folders[1])
    _check_partners(second, first, words[::-1], folders[0])
    return list(first.values()), [second[name] for name in first]


def _check_partners(ours: dict[str, Path], theirs: dict[str, Path], words: tuple[str, ...], folder: Path) -> None:
    alone = [name for name in ours if name not in theirs]
    if alone:
        raise DataError(
            f"{ours[alone[0]]}: every {words[0]} must have its {words[1]}, of the same name; {folder} has none. "
            f"{len(alone)} of {len(ours)} have none: add them, or take these away."
        )
