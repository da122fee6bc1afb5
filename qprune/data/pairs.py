"""From a spec's ``[data]`` table to datasets of pairs: scenes with their labels, or images to translate."""

from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from qprune.data.decode import height_width
from qprune.data.info import NAMED, DataInfo, statistic, usual_statistics
from qprune.data.joint import build_joint_augment
from qprune.data.pair_set import PairSet
from qprune.data.places import open_named_pairs, open_pairs
from qprune.data.shares import counts
from qprune.data.sides import choose, input_side, keep
from qprune.data.source import PairSource
from qprune.data.user_data import Splits
from qprune.spec import DataSpec


def describe_pairs(spec: DataSpec) -> DataInfo:
    """Classes, shape and sizes of a data set of pairs, without reading its images.

    Raises:
        DataError: as `qprune.data.describe`.

    Example:
        >>> describe_pairs(DataSpec(name="cityscapes", size=(256, 512), validation=0)).sizes
        {'train': 2975, 'val': 0, 'test': 500}
    """
    return _describe(spec, _stated(spec, open_pairs(spec)))


def load_pairs(spec: DataSpec, seed: int = 0) -> Splits:
    """Read a data set of pairs and split it.

    The headers of all files are read, and what is wrong is refused by name. Sets below 1 GiB of pixels are decoded
    here, larger ones as they are used.

    Args:
        spec: the spec's ``[data]``.
        seed: seeds the augmentation and the targets of unpaired training.

    Raises:
        DataError: as `qprune.data.load_data`.

    Example:
        >>> len(load_pairs(DataSpec(name="streets")).train)
        600
    """
    listed = open_pairs(spec)
    stated = _stated(spec, listed)
    info = _describe(spec, stated)
    augment = build_joint_augment(spec.augment, _blanks(spec, stated.shape, listed), fixed=spec.size is None)
    source = listed or open_named_pairs(spec)
    size = info.shape[1:]
    parts = choose(spec, source, size, stored=augment is not None)
    pictures = keep(parts, source.matched, None if spec.size else size)
    palette = info.palette if spec.translate else ()

    def dataset(part: str, **options: Any) -> PairSet:
        inputs, targets = pictures[part][:: -1 if spec.translate == "BtoA" else 1]
        return PairSet(inputs, targets, size, info.mean, info.std, palette, **options)

    val = dataset("val") if "val" in pictures else None
    train = dataset("train", augment=augment, seed=seed, unpaired=spec.unpaired)
    return Splits(info, train=train, val=val, test=dataset("test"))


def _stated(spec: DataSpec, listed: PairSource | None) -> DataInfo:
    """What is stored: of a named set in its own form what is known, of others what was listed."""
    known = NAMED.get(spec.name)
    if listed is None:
        assert known is not None
        return evolve(known, shape=(3, *height_width(spec.size))) if spec.name == "streets" and spec.size else known
    sizes = {"val": 0} | {split: len(sides[input_side(spec)]) for split, sides in listed.parts.items()}
    palette = known.palette if known else listed.palette
    return DataInfo(spec.name, listed.classes, listed.shape, sizes, *usual_statistics(spec.name, 3), palette)


def _describe(spec: DataSpec, stated: DataInfo) -> DataInfo:
    val, train = counts(spec, stated.sizes)
    sizes = {"train": train, "val": val, "test": stated.sizes["test"]}
    info = evolve(stated, sizes=sizes, shape=(3, *(height_width(spec.size) if spec.size else stated.shape[1:])))
    if spec.translate:
        mean, std = usual_statistics("translation", 3)
        return evolve(info, classes=(), mean=mean, std=std)
    return evolve(info, mean=statistic("mean", spec.mean, info.mean), std=statistic("std", spec.std, info.std))


def _blanks(spec: DataSpec, shape: tuple[int, int, int], listed: PairSource | None) -> list[tuple[Tensor, ...]]:
    photo = torch.zeros(shape, dtype=torch.uint8)
    other = photo if listed and not listed.classes else photo[0]
    return [(photo,), (other,)] if spec.unpaired else [(photo, other)]
