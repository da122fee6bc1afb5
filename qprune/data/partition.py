"""Divides a data set into training, validation and test images."""

from collections.abc import Mapping

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from qprune.data.decode import height_width
from qprune.data.info import DataInfo, statistic
from qprune.errors import DataError
from qprune.spec import DataSpec

Picked = dict[str, tuple[str, NDArray[np.int64]]]


def counts(spec: DataSpec, sizes: Mapping[str, int]) -> tuple[int, int]:
    """The number of validation images, and of training images."""
    total = sizes["train"]
    held = 0 if sizes.get("val") else round(spec.validation * total)
    if spec.validation and not sizes.get("val") and not 0 < held < total:
        raise DataError(
            f"data.validation must leave images on both sides; received {spec.validation} of {total} images."
        )
    train = total - held
    if spec.train_images is not None and not 0 < spec.train_images <= train:
        rest = f" ({total} less {held} for validation)" if held else ""
        raise DataError(f"data.train_images must be in 1 .. {train}{rest}; received {spec.train_images}.")
    return sizes.get("val") or held, spec.train_images or train


def as_used(spec: DataSpec, stored: DataInfo) -> DataInfo:
    """A data set as a run uses it: its parts, the size of its images, and what they are normalized by."""
    mean, std = statistic("mean", spec.mean, stored.mean), statistic("std", spec.std, stored.std)
    val, train = counts(spec, stored.sizes)
    sizes = {"train": train, "val": val, "test": stored.sizes["test"]}
    channels, *stored_size = stored.shape
    height, width = height_width(spec.size) if spec.size else stored_size
    return evolve(stored, shape=(channels, height, width), sizes=sizes, mean=mean, std=std)


def pick(spec: DataSpec, sizes: Mapping[str, int], order: NDArray[np.int64]) -> Picked:
    """For each part of the run its split and indices there; of a shuffle of the training images the first choose."""
    val, train = counts(spec, sizes)
    picked = {"test": ("test", np.arange(sizes["test"]))}
    if "val" in sizes:
        picked["val"] = ("val", np.arange(val))
    elif val:
        picked["val"], order = ("train", np.sort(order[:val])), order[val:]
    return picked | {"train": ("train", np.sort(order[:train]))}
