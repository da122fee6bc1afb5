"""What a file says about its network: classes, images, palette and spec, checked before anything relies on it."""

import os
from collections.abc import Mapping
from math import prod
from typing import Any

from qprune.errors import CheckpointError, SpecError
from qprune.spec import Spec, parse_toml, read_embedded

LARGEST = 1_000_000_000  # values of an image that anything can be about


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
    """Whether it looks like what `qprune.shrink.record` gave; what fits which network, `qprune.shrink.rebuild` sees.

    Example:
        >>> is_cut_record({"cuts": {}, "folds": []})
        True
    """
    return (
        isinstance(value, dict)
        and isinstance(value.get("folds"), list)
        and isinstance(value.get("cuts"), dict)
        and all(isinstance(path, str) for path in value["cuts"])
        and all(isinstance(cut, dict) and isinstance(cut.get("masks"), dict) for cut in value["cuts"].values())
    )


def _are_numbers(value: Any, count: int, least: int, most: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(n) is int and least <= n <= most for n in value)


def spec_in(text: str, source: str | os.PathLike[str]) -> Spec | None:
    """The spec that a file holds as TOML; None where it holds none. It leads to no other file.

    Raises:
        CheckpointError: if it cannot be read, with the file and the mistakes.

    Example:
        >>> spec_in("", "small.pt") is None
        True
    """
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
