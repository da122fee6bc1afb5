"""Opens the data set that a spec names, in ``data.root``, else QPRUNE_DATA, else the folder ``data`` here."""

import os
from pathlib import Path

from attrs import evolve

from qprune.data.cifar import cifar_source
from qprune.data.decode import height_width
from qprune.data.digits import digits_source
from qprune.data.folders import folder_source
from qprune.data.info import NAMED
from qprune.data.pictures import Streets
from qprune.data.scenes import camvid_source, cityscapes_source, segmentation_source
from qprune.data.source import PairSource, Source
from qprune.data.translation import has_two_folders, translation_source
from qprune.errors import DataError
from qprune.spec import DataSpec
from qprune.spelling import nearest

FOLDER, SEGMENTATION, TRANSLATION = "folder", "segmentation", "translation"
_WITH_ROOT = (FOLDER, SEGMENTATION, TRANSLATION)
FETCHED = ("cifar10", "cifar100")
_DRAWN = {"digits": "come with qprune", "streets": "are drawn"}


def is_paired(spec: DataSpec) -> bool:
    """Whether items are scenes with labels or images to translate; otherwise they are images with one class."""
    _check_name(spec)
    return _is_scenes(spec.name) or spec.name == TRANSLATION


def with_download(spec: DataSpec) -> DataSpec:
    """The same table with ``download`` on, for sets that can be fetched.

    Example:
        >>> with_download(DataSpec("cifar10")).download, with_download(DataSpec("digits")).download
        (True, False)
    """
    return evolve(spec, download=spec.download or spec.name in FETCHED)


def open_folder(spec: DataSpec) -> Source | None:
    """List the image folder that the spec means; None for a named set in its own form.

    ``cifar10`` and ``cifar100`` may lie in a folder with ``train/CLASS/NAME`` too.
    """
    _check_name(spec)
    if spec.name == "digits":
        return None
    root = _root(spec)
    if spec.name == FOLDER or (root / "train").is_dir():
        return folder_source(root, spec)
    return None


def open_named(spec: DataSpec) -> Source:
    """Read a named set in its own form."""
    return digits_source() if spec.name == "digits" else cifar_source(spec.name, _root(spec), spec.download)


def open_pairs(spec: DataSpec) -> PairSource | None:
    """List the folder of pairs that the spec means; None for a named set in its own form.

    Where images are translated, ``camvid`` and ``cityscapes`` may lie in folders ``trainA``, ``trainB`` ... too.
    """
    _check_name(spec)
    if spec.name == "streets":
        return None
    root = _root(spec)
    if spec.name == SEGMENTATION:
        return segmentation_source(root)
    if spec.name == TRANSLATION or (spec.translate and has_two_folders(root)):
        return translation_source(root, spec.unpaired)
    return None


def open_named_pairs(spec: DataSpec) -> PairSource:
    """List or draw a named set of scenes in its own form."""
    if spec.name == "streets":
        return _streets(spec)
    return {"camvid": camvid_source, "cityscapes": cityscapes_source}[spec.name](_root(spec))


def _streets(spec: DataSpec) -> PairSource:
    info = NAMED["streets"]
    size = height_width(spec.size or info.shape[1:])
    parts = {
        split: (Streets(split, count, size), Streets(split, count, size, labels=True))
        for split, count in info.sizes.items()
    }
    return PairSource(info.classes, info.palette, (3, *size), dict(parts))


def _is_scenes(name: str) -> bool:
    return name == SEGMENTATION or (name in NAMED and NAMED[name].kind == "segmentation")


def _check_name(spec: DataSpec) -> None:
    if spec.is_own:
        raise DataError(
            "The spec names no data (data.name), so it must be handed over, to fit, plan, evaluate and export alike: "
            'data={"train": ..., "val": ..., "test": ...}, in Python.'
        )
    known = sorted((*NAMED, *_WITH_ROOT))
    if spec.name not in known:
        near = nearest(spec.name, known, repr) or f"; known are {', '.join(known)}"
        be = f"a named data set, {FOLDER!r}, {SEGMENTATION!r} or {TRANSLATION!r}"
        raise DataError(f"data.name must be {be}; received {spec.name!r}{near}.")
    if spec.name in _DRAWN and spec.root is not None:
        raise DataError(
            f"data.root must be left out for {spec.name}, which {_DRAWN[spec.name]}; received {spec.root!r}."
        )
    if spec.name in _WITH_ROOT and _given_root(spec) is None:
        raise DataError(
            f'data.root must say where the images of data.name = "{spec.name}" are; received none. Or set QPRUNE_DATA.'
        )
    _check_frame(spec)
    if spec.download and spec.name not in FETCHED:
        raise DataError(f"data.download fetches cifar10 and cifar100; received true with {spec.name!r}.")
    _check_translate(spec)


def _check_frame(spec: DataSpec) -> None:
    for name, value in (("resize", spec.resize), ("interpolation", spec.interpolation)):
        if value is not None and spec.name != FOLDER:
            raise DataError(f'data.{name} is of data.name = "{FOLDER}"; received {value!r} with {spec.name!r}.')
        if value is not None and spec.size is None:
            raise DataError(f"data.{name} needs data.size, to which images are brought; received {value!r} alone.")


def _check_translate(spec: DataSpec) -> None:
    if spec.name == TRANSLATION and spec.translate is None:
        raise DataError('data.translate must be "AtoB" or "BtoA" for data.name = "translation"; received none.')
    if spec.translate is None:
        return
    if not _is_scenes(spec.name) and spec.name != TRANSLATION:
        raise DataError(
            f'data.translate takes scenes or data.name = "translation"; received {spec.translate!r} with {spec.name!r}.'
        )
    if spec.mean is not None:
        raise DataError(
            f"data.mean and data.std must be left out with data.translate, which brings pixels to [-1, 1]; received "
            f"{list(spec.mean)} and {list(spec.std or ())}."
        )


def _given_root(spec: DataSpec) -> str | None:
    return spec.root or os.environ.get("QPRUNE_DATA") or None


def _root(spec: DataSpec) -> Path:
    root = Path(_given_root(spec) or "data").expanduser()
    return root / spec.name if (root / spec.name).is_dir() else root
