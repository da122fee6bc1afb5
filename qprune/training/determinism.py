"""`determined`: the same bits from every run, and the names of the operations that cannot give them."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

log = logging.getLogger(__name__)

_WITHOUT = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def determined(wanted: bool = True) -> Iterator[list[str]]:
    """Let torch choose operations whose results do not depend on timing; it may choose slower ones.

    On a CPU all operations of the networks here are. On a GPU some are not, such as the gradient of bilinear resizing
    and of reflection padding: each is named once in the log, and training goes on.

    Args:
        wanted: false changes nothing.

    Yields:
        the names of the operations met so far that have no deterministic form.

    Example:
        >>> with determined() as others:
        ...     loss.backward()
        >>> others
        []
    """
    found: list[str] = []
    if not wanted:
        yield found
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    benchmark = torch.backends.cudnn.benchmark
    with warnings.catch_warnings():
        # not "once", which would keep an operation from being named in a second training of the same process
        warnings.filterwarnings("always", message=_WITHOUT.pattern)
        warnings.showwarning = _told(found, warnings.showwarning)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        try:
            yield found
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark = benchmark


def _told(found: list[str], others: Any) -> Any:
    def show(message: Warning | str, *details: Any, **options: Any) -> None:
        match = _WITHOUT.search(str(message))
        if match is None:
            others(message, *details, **options)
        elif match[1] not in found:
            found.append(match[1])
            log.warning("%s has no deterministic form: results may differ from run to run.", match[1])

    return show
