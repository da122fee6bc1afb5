"""From a spec's ``[data]`` table to datasets: which images train, choose and report."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from attrs import evolve

from qprune.data.augment import build_augment
from qprune.data.datasets import ImageSet
from qprune.data.info import NAMED, DataInfo, usual_statistics
from qprune.data.own import Splits
from qprune.data.places import open_folder, open_named
from qprune.data.seeds import SPLIT, stratified_order
from qprune.data.source import Images, Source
from qprune.errors import DataError
from qprune.spec import DataSpec


def describe(spec: DataSpec) -> DataInfo:
    """Classes, shape and sizes of a data set, without reading its images.

    Named sets come from a table, so that nothing need be on this machine; folders are listed, and one header is read.

    Raises:
        DataError: for an unknown name, a folder that is missing or malformed, or settings that do not fit the set.

    Example:
        >>> describe(DataSpec(name="cifar100", validation=0.1)).sizes
        {'train': 45000, 'val': 5000, 'test': 10000}
    """
    return _describe(spec, open_folder(spec))


def load_data(spec: DataSpec, seed: int = 0) -> Splits:
    """Read a data set and split it.

    The validation share and the ``train_images`` are class-stratified and the same for every seed, so that a run that
    starts from another's weights never chooses on images which that one trained on. ``validation`` is a share of the
    whole training set; ``train_images`` are taken from the rest. A set with its own validation images keeps to those.

    Args:
        spec: the spec's ``[data]``.
        seed: seeds the augmentation of the training images.

    Raises:
        DataError: as `describe`, and for augmentation that cannot work or files that are missing or unreadable.

    Example:
        >>> len(load_data(DataSpec(name="digits")).train)
        1197
    """
    folder = open_folder(spec)
    info = _describe(spec, folder)
    augment = build_augment(spec.augment, info.shape)
    source = folder or open_named(spec)
    picked = _pick(spec, source)

    def dataset(part: str, **options: Any) -> ImageSet:
        split, indices = picked[part]
        labels = torch.from_numpy(source.labels[split][indices])
        return ImageSet(_resized(source.read(split, indices), info.shape), labels, info.mean, info.std, **options)

    val = dataset("val") if "val" in picked else None
    return Splits(info, train=dataset("train", augment=augment, seed=seed), val=val, test=dataset("test"))


def _describe(spec: DataSpec, folder: Source | None) -> DataInfo:
    info = _folder_info(spec.name, folder) if folder else NAMED[spec.name]
    channels, height, width = info.shape
    mean, std = _statistic(spec.mean, "mean", info.mean), _statistic(spec.std, "std", info.std)
    val, train = _counts(spec, info.sizes)
    sizes = {"train": train, "val": val, "test": info.sizes["test"]}
    return evolve(info, shape=(channels, spec.size or height, spec.size or width), sizes=sizes, mean=mean, std=std)


def _folder_info(name: str, source: Source) -> DataInfo:
    known = NAMED.get(name)
    if known and len(source.classes) != len(known.classes):
        found = f"received {len(source.classes)} class folders"
        raise DataError(f'data.root: {name} has {len(known.classes)} classes; {found}. Or set data.name = "folder".')
    mean, std = usual_statistics(name, source.shape[0])
    return DataInfo(name, source.classes, source.shape, {"val": 0} | source.sizes, mean, std)


def _statistic(given: tuple[float, ...] | None, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    if given is None:
        return default
    if len(given) != len(default):
        raise DataError(f"data.{name} must have one number per channel, {len(default)}; received {list(given)}.")
    return tuple(given)


def _counts(spec: DataSpec, sizes: Mapping[str, int]) -> tuple[int, int]:
    """How many images choose, and how many train."""
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


def _pick(spec: DataSpec, source: Source) -> dict[str, tuple[str, np.ndarray]]:
    """For each part of the run the split that its images come from, and which of them."""
    val, train = _counts(spec, source.sizes)
    order = stratified_order(source.labels["train"], SPLIT)
    picked = {"test": ("test", np.arange(source.sizes["test"]))}
    if "val" in source.labels:
        picked["val"] = ("val", np.arange(val))
    elif val:
        picked["val"], order = ("train", np.sort(order[:val])), order[val:]
    return picked | {"train": ("train", np.sort(order[:train]))}


def _resized(images: Images, shape: tuple[int, int, int]) -> Images:
    if not isinstance(images, torch.Tensor) or images.shape[1:] == shape:
        return images
    from torchvision.transforms.v2 import functional

    resized: torch.Tensor = functional.resize(images, list(shape[1:]), antialias=True)
    return resized
