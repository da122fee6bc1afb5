"""`quiet`: what a library writes to standard output by itself, past Python, is not seen."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing reach the standard output of this process that is written past ``sys.stdout`` meanwhile.

    HiGHS prints a line that no option of it or of scipy turns off (ERGO-Code/HiGHS issue 2783), into the output of a
    command that others read.
    """
    with suppress(AttributeError, OSError, ValueError):  # replaced by something that is no file, or closed
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    _flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        _flush()  # C keeps in its own buffer what goes to no terminal, and would write it later
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


def _flush() -> None:
    with suppress(AttributeError, OSError, TypeError):  # where the C library has another name
        ctypes.CDLL(None).fflush(None)
