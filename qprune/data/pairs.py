"""From a spec's ``[data]`` table to datasets of pairs: scenes with their labels, or images to translate."""

from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from qprune.data import folders
from qprune.data.decode import height_width
from qprune.data.info import NAMED, DataInfo, usual_statistics
from qprune.data.joint import build_joint_augment
from qprune.data.opening import open_named_pairs, open_pairs
from qprune.data.pair_set import PairSet
from qprune.data.partition import as_used, pick
from qprune.data.pictures import Chosen
from qprune.data.seeds import SPLIT, permutation
from qprune.data.source import PairSource, Pictures, StoredPictures
from qprune.data.user_data import Splits
from qprune.errors import DataError
from qprune.spec import DataSpec

Sides = tuple[Chosen, Chosen]  # A and B of one part of a run
Size = tuple[int, int]


def describe_pairs(spec: DataSpec) -> DataInfo:
    """Classes, shape and sizes of a data set of pairs, without reading its images."""
    return _describe(spec, _stated(spec, open_pairs(spec)))


def load_pairs(spec: DataSpec, seed: int = 0) -> Splits:
    """Read a data set of pairs and split it; sets below 1 GiB of pixels are decoded here, others as they are used."""
    listed = open_pairs(spec)
    stated = _stated(spec, listed)
    info = _describe(spec, stated)
    augment = build_joint_augment(spec.augment or (), _blanks(spec, stated.shape, listed), fixed=spec.size is None)
    source = listed or open_named_pairs(spec)
    size = info.shape[1:]
    # training pictures that are augmented stay as they are stored: augmentation comes before the resize
    parts = _choose(spec, source, size, stored=augment is not None)
    needed = {part: _checked_bytes(sides, source.matched, None if spec.size else size) for part, sides in parts.items()}
    pictures: dict[str, tuple[Pictures, Pictures]] = {
        part: _decoded(*sides) if needed[part] < folders.MEMORY_LIMIT else sides for part, sides in parts.items()
    }
    palette = info.palette if spec.translate else ()

    def dataset(part: str, **options: Any) -> PairSet:
        inputs, targets = pictures[part][:: -1 if spec.translate == "BtoA" else 1]
        return PairSet(inputs, targets, size, info.mean, info.std, palette, **options)

    val = dataset("val") if "val" in pictures else None
    train = dataset("train", augment=augment, seed=seed, unpaired=spec.unpaired)
    return Splits(info, train=train, val=val, test=dataset("test"))


def _stated(spec: DataSpec, listed: PairSource | None) -> DataInfo:
    """The data set as it is stored: from the table for a named set, from the listing for others."""
    known = NAMED.get(spec.name)
    if listed is None:
        assert known is not None
        return evolve(known, shape=(3, *height_width(spec.size))) if spec.name == "streets" and spec.size else known
    sizes = {"val": 0} | {split: len(sides[_input_side(spec)]) for split, sides in listed.parts.items()}
    palette = known.palette if known else listed.palette
    return DataInfo(spec.name, listed.classes, listed.shape, sizes, *usual_statistics(spec.name, 3), palette)


def _describe(spec: DataSpec, stated: DataInfo) -> DataInfo:
    info = as_used(spec, stated)
    if spec.translate:
        mean, std = usual_statistics("translation", 3)
        return evolve(info, classes=(), mean=mean, std=std)
    return info


def _blanks(spec: DataSpec, shape: tuple[int, int, int], listed: PairSource | None) -> list[tuple[Tensor, ...]]:
    photo = torch.zeros(shape, dtype=torch.uint8)
    other = photo if listed and not listed.classes else photo[0]
    return [(photo,), (other,)] if spec.unpaired else [(photo, other)]


def _input_side(spec: DataSpec) -> int:
    return 1 if spec.translate == "BtoA" else 0  # A is the photos


def _choose(spec: DataSpec, source: PairSource, size: Size, stored: bool) -> dict[str, Sides]:
    """Both sides of each part of the run."""
    a, b = (_picked(spec, source, side) for side in (0, 1))
    sizes = {part: None if stored and part == "train" else size for part in a}
    return {part: (Chosen(*a[part], sizes[part]), Chosen(*b[part], sizes[part])) for part in a}


def _picked(spec: DataSpec, source: PairSource, side: int) -> dict[str, tuple[StoredPictures, list[int]]]:
    pictures = {split: sides[side] for split, sides in source.parts.items()}
    sizes = {split: len(some) for split, some in pictures.items()}
    if not source.matched and side != _input_side(spec):
        spec = evolve(spec, train_images=None)  # inputs are counted; any target may come
    picked = pick(spec, sizes, permutation(sizes["train"], SPLIT))
    return {part: (pictures[split], indices.tolist()) for part, (split, indices) in picked.items()}


def _checked_bytes(sides: Sides, matched: bool, size: Size | None) -> int:
    """Check the headers of all files; how many bytes their pixels take once they are decoded."""
    stored = [chosen.stored_sizes() for chosen in sides]
    for chosen, sizes in zip(sides, stored, strict=True):
        if size:
            _check_sizes(chosen, sizes, [size] * len(sizes), "the others", " Or set data.size.")
    if matched:
        _check_sizes(sides[1], stored[1], stored[0], "its partner")
    decoded = ([c.size] * len(sizes) if c.size else sizes for c, sizes in zip(sides, stored, strict=True))
    return sum(3 * height * width for sizes in decoded for height, width in sizes)


def _check_sizes(chosen: Chosen, sizes: list[Size], expected: list[Size], like: str, way_out: str = "") -> None:
    for index, (theirs, ours) in enumerate(zip(sizes, expected, strict=True)):
        if theirs != ours:
            raise DataError(
                f"{chosen.name_of(index)}: must be of one size with {like}, {ours[0]}x{ours[1]} (height x width); "
                f"received {theirs[0]}x{theirs[1]}.{way_out}"
            )


def _decoded(first: Chosen, second: Chosen) -> tuple[list[Tensor], list[Tensor]]:
    # in turns, because both may come from one file or one drawing
    both: tuple[list[Tensor], list[Tensor]] = ([], [])
    for index in range(max(len(first), len(second))):
        for chosen, kept in zip((first, second), both, strict=True):
            if index < len(chosen):
                kept.append(chosen[index])
    return both
