"""The two sides of a data set of pairs: which pictures of each, checked by their headers, decoded where they fit."""

from collections.abc import Mapping

from attrs import evolve
from torch import Tensor

from qprune.data import folders
from qprune.data.pictures import Chosen
from qprune.data.seeds import SPLIT, permutation
from qprune.data.shares import pick
from qprune.data.source import PairSource, Pictures, StoredPictures
from qprune.errors import DataError
from qprune.spec import DataSpec

Sides = tuple[Chosen, Chosen]


def input_side(spec: DataSpec) -> int:
    """0 where inputs are A, the photos; 1 where they are B.

    Example:
        >>> input_side(DataSpec("streets", translate="BtoA"))
        1
    """
    return 1 if spec.translate == "BtoA" else 0


def choose(spec: DataSpec, source: PairSource, size: tuple[int, int], stored: bool) -> dict[str, Sides]:
    """Both sides of each part of the run.

    Args:
        spec: for the validation share and ``train_images``.
        source: all there is.
        size: (height, width) that pictures are squeezed to.
        stored: leave training pictures as they are stored, because they are augmented first.

    Raises:
        DataError: as `pick`.

    Example:
        >>> a, b = choose(spec, source, (64, 96), stored=False)["test"]
    """
    a, b = (_picked(spec, source, side) for side in (0, 1))
    sizes = {part: None if stored and part == "train" else size for part in a}
    return {part: (Chosen(*a[part], sizes[part]), Chosen(*b[part], sizes[part])) for part in a}


def keep(
    parts: Mapping[str, Sides], matched: bool, size: tuple[int, int] | None
) -> dict[str, tuple[Pictures, Pictures]]:
    """Check all headers, then decode the parts that take less than `folders.MEMORY_LIMIT` bytes.

    Args:
        parts: from `choose`.
        matched: whether pictures at one place belong together, and must be of one size.
        size: (height, width) that all pictures must have as they are stored; None for any.

    Raises:
        DataError: for files that cannot be used; they are named.

    Example:
        >>> inputs, targets = keep(parts, matched=True, size=None)["test"]
    """
    needs = {part: _checked(sides, matched, size) for part, sides in parts.items()}
    return {part: _decoded(*sides) if needs[part] < folders.MEMORY_LIMIT else sides for part, sides in parts.items()}


def _picked(spec: DataSpec, source: PairSource, side: int) -> dict[str, tuple[StoredPictures, list[int]]]:
    pictures = {split: sides[side] for split, sides in source.parts.items()}
    sizes = {split: len(some) for split, some in pictures.items()}
    if not source.matched and side != input_side(spec):
        spec = evolve(spec, train_images=None)  # inputs are counted; any target may come
    picked = pick(spec, sizes, permutation(sizes["train"], SPLIT))
    return {part: (pictures[split], indices.tolist()) for part, (split, indices) in picked.items()}


def _checked(sides: Sides, matched: bool, size: tuple[int, int] | None) -> int:
    """Bytes of the pixels that decoding would keep."""
    stored = [chosen.stored_sizes() for chosen in sides]
    for chosen, sizes in zip(sides, stored, strict=True):
        if size:
            _must_be(chosen, sizes, [size] * len(sizes), "the others", " Or set data.size.")
    if matched:
        _must_be(sides[1], stored[1], stored[0], "its partner")
    kept = ([c.size] * len(sizes) if c.size else sizes for c, sizes in zip(sides, stored, strict=True))
    return sum(3 * height * width for sizes in kept for height, width in sizes)


def _must_be(
    chosen: Chosen, sizes: list[tuple[int, int]], expected: list[tuple[int, int]], like: str, way_out: str = ""
) -> None:
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
