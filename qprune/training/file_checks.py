"""Checks what a file says about its network and data, before memory is allocated for it."""

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from qprune.assemble import assemble
from qprune.data.decode import height_width
from qprune.errors import CheckpointError, SpecError
from qprune.spec import DataSpec, Spec, parse_toml, read_embedded

LARGEST = 1_000_000_000  # values of an image that anything can be about
IMAGE = 2**26  # values of an image: 256 MiB in float32, three channels of 4,729 x 4,729
NETWORK, RATIO = 2**28, 64  # values of a network: 1 GiB in float32, or so many times what is stored of it
BATCH, BATCH_VALUES = 1024, 2**28  # images of a batch, and values of all of them
VARIABLE = "QPRUNE_LARGEST_IMAGE"


def is_about_images(content: Mapping[str, Any]) -> bool:
    """Whether ``classes``, ``shape`` and, where it is there, ``palette`` are what their names say.

    Args:
        content: from a file; anything may be under each of the names.

    Example:
        >>> is_about_images({"classes": ["cat", "dog"], "shape": [3, 32, 32]})
        True
    """
    classes, shape, palette = content.get("classes"), content.get("shape"), content.get("palette", [])
    return (
        isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and isinstance(shape, list)
        # empty where a network of the user's own was trained in a loop of theirs
        and (shape == [] or _are_numbers(shape, 3, least=1, most=LARGEST))
        and prod(shape) <= LARGEST
        and isinstance(palette, list)
        and all(_are_numbers(colour, 3, least=0, most=255) for colour in palette)
    )


def is_cut_record(value: Any) -> bool:
    """Whether a value has the form of what `qprune.shrinking.record` gives; `rebuild` there checks the rest."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("folds"), list)
        and isinstance(value.get("left_out", []), list)
        and all(isinstance(path, str) for path in value.get("left_out", []))
        and isinstance(value.get("cuts"), dict)
        and all(isinstance(path, str) for path in value["cuts"])
        and all(isinstance(cut, dict) and isinstance(cut.get("masks"), dict) for cut in value["cuts"].values())
    )


def _are_numbers(value: Any, count: int, least: int, most: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(n) is int and least <= n <= most for n in value)


def spec_in(text: str, source: str | os.PathLike[str]) -> Spec | None:
    """The spec that a file holds as TOML, None if it holds none; ``extends`` is not followed."""
    if not text:
        return None
    try:
        table = parse_toml(text)
    except ValueError as error:
        raise CheckpointError(f"{source} holds a spec that cannot be read: it {error}. Train the run again.") from error
    return spec_of(table, source)


def spec_of(table: Any, source: str | os.PathLike[str]) -> Spec:
    """The spec that a file holds as a table.

    Raises:
        CheckpointError: as `spec_in`.

    Example:
        >>> spec_of(read_spec("digits/baseline").to_dict(), "model.onnx").seed
        0
    """
    try:
        return read_embedded(table)
    except SpecError as error:
        mistakes = "; ".join(line.rstrip(".") for line in error.mistakes[:5])
        raise CheckpointError(f"{source} holds a spec that cannot be read: {mistakes}. Train the run again.") from error


def check_images(shape: Sequence[int], spec: Spec | None, source: str | os.PathLike[str]) -> None:
    """Refuse a file about images so large that memory for one could be out of reach.

    Args:
        shape: ``(C, H, W)`` of an image, as the file says; empty where it does not.
        spec: the spec in the file, whose ``data.size`` or ``data.resize`` images are brought to.
        source: the file, for the error.

    Raises:
        CheckpointError: if an image has more than 2**26 values, or than ``QPRUNE_LARGEST_IMAGE`` says.

    Example:
        >>> check_images((3, 32, 32), None, "model.pt")
    """
    sizes = [] if spec is None else [spec.data.size, spec.data.resize]
    shapes = [tuple(shape), *((3, *height_width(size)) for size in sizes if size is not None)]
    largest = max(shapes, key=prod)
    if prod(largest) > _most():
        raise CheckpointError(
            f"{source} is about images of {' x '.join(map(str, largest))}, {prod(largest):,} values; a file's word is "
            f"taken for {_most():,}. If it is right, set {VARIABLE} to that many."
        )


def _most() -> int:
    told = os.environ.get(VARIABLE) or str(IMAGE)
    if not (told.isdecimal() and 0 < len(told) < 16):
        raise CheckpointError(f'{VARIABLE} must be a whole number of values; received "{told}".')
    return int(told)


def check_network(spec: Spec, content: Mapping[str, Any], source: str | os.PathLike[str]) -> None:
    """Refuse a spec of a network that is much larger than the tensors beside it, before memory is asked for it."""
    if not content["shape"]:
        raise CheckpointError(f"{source} does not say how large its images are. Train the run again.")
    bare = evolve(spec, prune=(), quantize=(), complete=False)
    with torch.device("meta"):
        net = assemble(bare, len(content["classes"]), tuple(content["shape"]))
    values = sum(tensor.numel() for tensor in net.state_dict().values())
    stored = sum(tensor.numel() for tensor in content["state"].values() if isinstance(tensor, Tensor))
    if values > max(NETWORK, RATIO * stored):
        raise CheckpointError(
            f"{source} describes a network of {values:,} values, and holds {stored:,}. Take out what was dropped "
            "(qprune.shrink) and save the network with qprune.save, which needs no spec."
        )


def batch_of(spec: Spec, shape: Sequence[int]) -> int:
    """Images of a batch that a file may ask for: its ``train.batch``, at most 1,024, and 1 GiB of them in float32.

    Example:
        >>> batch_of(read_spec("digits/baseline"), (1, 8, 8))
        64
    """
    return min(spec.train.batch, BATCH, max(1, BATCH_VALUES // max(1, prod(shape))))


def workers_of(spec: Spec) -> int | None:
    """Processes that a file may have images loaded by: its ``data.workers``, at most one for each core."""
    return None if spec.data.workers is None else min(spec.data.workers, os.cpu_count() or 1)


def without_download(data: DataSpec) -> DataSpec:
    """The same data table with ``download`` off: nothing is downloaded because a file says so."""
    return evolve(data, download=False)
