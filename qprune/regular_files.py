"""Reading files that others may have put there: regular ones, of a bounded size; a pipe or a device never ends."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def open_regular(path: str | os.PathLike[str], most: int) -> BinaryIO:
    """Open a file for reading, if it is a regular one of at most so many bytes; links are followed.

    Raises:
        OSError: if it cannot be opened, is no regular file, or is larger; ``strerror`` says which.

    Example:
        >>> open_regular("/dev/zero", most=2**20)
        Traceback (most recent call last):
        OSError: [Errno 22] it is a device, and only regular files are read: '/dev/zero'
    """
    _check(os.stat(path), path, most)
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    try:
        _check(os.fstat(file.fileno()), path, most)  # another one may have taken its place
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file, if it is a regular one of at most so many; links are followed.

    Raises:
        OSError: as `open_regular`.

    Example:
        >>> read_regular(Path("specs/digits/baseline.toml"), most=2**20)[:10]
        b'format = 1'
    """
    with open_regular(path, most) as file:
        return file.read(most)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for somebody to write


def _check(status: os.stat_result, path: str | os.PathLike[str], most: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(Path(path)))
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, and only regular files are read", str(Path(path)))
    if status.st_size > most:
        reason = f"it is {status.st_size:,} bytes long, and at most {most:,} are read"
        raise OSError(errno.EFBIG, reason, str(Path(path)))
