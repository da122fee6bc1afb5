"""From a spec's ``[data]`` table to datasets: which images train, choose and report."""

from typing import Any

import torch

from qprune.data.augment import build_augment
from qprune.data.datasets import ImageSet
from qprune.data.info import NAMED, DataInfo, usual_statistics
from qprune.data.opening import is_paired, open_folder, open_named
from qprune.data.pairs import describe_pairs, load_pairs
from qprune.data.partition import as_used, pick
from qprune.data.resizing import fit
from qprune.data.seeds import SPLIT, stratified_order
from qprune.data.source import Source
from qprune.data.user_data import Splits
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
    return describe_pairs(spec) if is_paired(spec) else _describe(spec, open_folder(spec))


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
    if is_paired(spec):
        return load_pairs(spec, seed)
    folder = open_folder(spec)
    info = _describe(spec, folder)
    stored = folder.stored_shape if folder else None
    augment = build_augment(spec.augment or (), stored or info.shape, fixed=stored is None)
    source = folder or open_named(spec)
    picked = pick(spec, source.sizes, stratified_order(source.labels["train"], SPLIT))

    def dataset(part: str, **options: Any) -> ImageSet:
        split, indices = picked[part]
        labels = torch.from_numpy(source.labels[split][indices])
        if source.photos is not None and options.get("augment") is not None:
            return ImageSet(source.photos(split, indices), labels, info.mean, info.std, **options)
        images = source.read(split, indices)
        if isinstance(images, torch.Tensor):  # files are resized as they are decoded
            images = fit(images, info.shape[1:])
        return ImageSet(images, labels, info.mean, info.std, **options)

    val = dataset("val") if "val" in picked else None
    return Splits(info, train=dataset("train", augment=augment, seed=seed), val=val, test=dataset("test"))


def _describe(spec: DataSpec, folder: Source | None) -> DataInfo:
    return as_used(spec, _folder_info(spec.name, folder) if folder else NAMED[spec.name])


def _folder_info(name: str, source: Source) -> DataInfo:
    known = NAMED.get(name)
    if known and len(source.classes) != len(known.classes):
        found = f"received {len(source.classes)} class folders"
        raise DataError(f'data.root: {name} has {len(known.classes)} classes; {found}. Or set data.name = "folder".')
    mean, std = usual_statistics(name, source.shape[0])
    return DataInfo(name, source.classes, source.shape, {"val": 0} | source.sizes, mean, std)
