"""Files written whole or not at all: beside their place, flushed, then moved into it."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import IO

from qprune.errors import CheckpointError

ABANDONED = 3600  # seconds; a part that nobody has written to for so long belongs to a process that was killed


@contextmanager
def replaced(path: Path, keep_as: str | None = None) -> Iterator[IO[bytes]]:
    """Write a file next to ``path`` and, if all goes well, put it in its place in one move.

    A link of that name is replaced, never followed. The file that was there is deleted, or kept in its folder as
    ``keep_as``; one of the two is whole at every instant, even if the old file was damaged.

    Raises:
        CheckpointError: if it cannot be written, say on a full disk; what was there is left as it was.
    """
    part = _part(path)
    with explaining_write_errors(path), _removed(part):
        remove_parts(path, ABANDONED)
        part.unlink(missing_ok=True)  # of a killed process that had this process's number
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        _move(part, path, keep_as)


def _move(part: Path, path: Path, keep_as: str | None) -> None:
    if keep_as is None or not path.is_file() or path.is_symlink():
        part.replace(path)
    else:
        old = path.with_name(keep_as)
        remove_parts(old, ABANDONED)
        with _removed(_part(old)) as kept:
            _duplicate(path, kept)
            part.replace(path)
            kept.replace(old)  # last: a damaged file never takes the place of the only good one
    _flush(path.parent)


@contextmanager
def _removed(part: Path) -> Iterator[Path]:
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def explaining_write_errors(path: Path) -> Iterator[None]:
    """Tell what went wrong in writing ``path`` in a sentence, with the way out."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}. What was there before is intact. "
            "Free some space or make the folder writable, then go on with --resume; or choose another folder with "
            "--runs."
        ) from error


def remove_parts(path: Path, age: float = 0) -> None:
    """Remove what processes that were killed while they wrote ``path`` left beside it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(FileNotFoundError):
            if time() - part.lstat().st_mtime >= age:
                part.unlink()


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _duplicate(path: Path, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    try:
        os.link(path, copy)
    except OSError:  # file systems without hard links
        shutil.copyfile(path, copy)


def _flush(folder: Path) -> None:
    with suppress(OSError):  # folders of some network file systems cannot be flushed, nor those of Windows
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
