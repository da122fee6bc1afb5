"""Where a data set lies: ``data.root``, else QPRUNE_DATA, else the folder ``data`` here."""

import os
from pathlib import Path

from qprune.data.cifar import cifar_source
from qprune.data.digits import digits_source
from qprune.data.folders import folder_source, is_image_folder
from qprune.data.info import NAMED
from qprune.data.source import Source
from qprune.data.words import nearest
from qprune.errors import DataError
from qprune.spec import DataSpec

FOLDER = "folder"


def open_folder(spec: DataSpec) -> Source | None:
    """List the image folder that the spec means; None for a named set in its own form.

    ``cifar10`` and ``cifar100`` may lie in a folder with ``train/CLASS/NAME`` too.

    Raises:
        DataError: for an unknown name, or a folder that is missing or malformed.

    Example:
        >>> open_folder(DataSpec(name="digits")) is None
        True
    """
    _check_name(spec)
    if spec.name == "digits":
        return None
    root = _root(spec)
    if spec.name == FOLDER or is_image_folder(root):
        return folder_source(root, spec.size)
    return None


def open_named(spec: DataSpec) -> Source:
    """Read a named set in its own form.

    Raises:
        DataError: if it is not on this machine and ``download`` is false.

    Example:
        >>> open_named(DataSpec(name="digits")).sizes
        {'train': 1197, 'val': 200, 'test': 400}
    """
    if spec.name == "digits":
        return digits_source()
    return cifar_source(spec.name, _root(spec), spec.download)


def _check_name(spec: DataSpec) -> None:
    known = sorted((*NAMED, FOLDER))
    if spec.name not in known:
        near = nearest(spec.name, known) or f"; known are {', '.join(known)}"
        raise DataError(f"data.name must be a named data set or {FOLDER!r}; received {spec.name!r}{near}.")
    if spec.name == "digits" and spec.root is not None:
        raise DataError(f"data.root must be left out for digits, which come with qprune; received {spec.root!r}.")
    if spec.name == FOLDER and _given_root(spec) is None:
        raise DataError(
            'data.root must say where the images of data.name = "folder" are; received none. Or set QPRUNE_DATA.'
        )


def _given_root(spec: DataSpec) -> str | None:
    return spec.root or os.environ.get("QPRUNE_DATA") or None


def _root(spec: DataSpec) -> Path:
    root = Path(_given_root(spec) or "data").expanduser()
    return root / spec.name if (root / spec.name).is_dir() else root
