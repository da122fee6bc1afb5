"""Augmentation of two pictures at once: an image and its labels, or two images that belong together."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qprune.data.augment import Augment, build_transform, find_transform, reason, transformed
from qprune.data.info import IGNORE
from qprune.errors import DataError


def build_joint_augment(
    tables: Sequence[Mapping[str, Any]], together: Sequence[Sequence[Tensor]], fixed: bool = True
) -> Augment | None:
    """Make the transforms of ``data.augment`` for pairs, and try them on blank pictures."""
    if not tables:
        return None
    transforms = tuple(_build(table, f"data.augment[{i}]") for i, table in enumerate(tables))
    for pictures in together:
        _try(transforms, pictures, fixed)
    return Augment(transforms)


def _build(table: Mapping[str, Any], path: str) -> Any:
    from torchvision import tv_tensors

    fill = inspect.signature(find_transform(table.get("name"), path)).parameters.get("fill")
    if fill is not None:
        table = {**table, "fill": {tv_tensors.Image: table.get("fill", fill.default), tv_tensors.Mask: IGNORE}}
    return build_transform(table, path)


def _try(transforms: Sequence[Any], pictures: Sequence[Tensor], fixed: bool) -> None:
    made, state = tuple(pictures), torch.get_rng_state()
    try:
        for i, transform in enumerate(transforms):
            made = _tried(transform, made, f"data.augment[{i}]")
    finally:
        torch.set_rng_state(state)
    if fixed and made[0].shape != pictures[0].shape:
        raise DataError(
            f"data.augment must keep shape {tuple(pictures[0].shape)} where data.size is not set, as evaluation does; "
            f"it made {tuple(made[0].shape)}."
        )


def _tried(transform: Any, pictures: tuple[Tensor, ...], path: str) -> tuple[Tensor, ...]:
    name, shapes = type(transform).__name__, " and ".join(str(tuple(p.shape)) for p in pictures)
    try:
        made = transformed((transform,), pictures)
    except Exception as error:  # whatever torchvision meets first: a crop that is too large, labels it cannot take
        raise DataError(f"{path}: {name} fails on pictures of shape {shapes}: {reason(error)}") from error
    for before, after in zip(pictures, made, strict=True):
        if after.dtype != torch.uint8 or after.shape[:-2] != before.shape[:-2]:
            raise DataError(f"{path}: {name} must keep channels and type uint8; it made {tuple(after.shape)}.")
    return made
