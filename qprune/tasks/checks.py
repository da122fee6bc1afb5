"""Validators of the tasks' fields; each sentence names the field, the rule and the value received."""

from math import inf
from typing import Any

import torch
from torch import Tensor


def is_classes(_: object, __: object, value: Any) -> None:
    """Refuse what is no whole number of at least 2."""
    if not _is_a(value, int) or value < 2:
        raise ValueError(f"classes must be a whole number of at least 2; received {value!r}")


def is_count(_: object, attribute: Any, value: Any) -> None:
    """Refuse what is no whole number of at least 0."""
    if not _is_a(value, int) or value < 0:
        raise ValueError(f"{attribute.name} must be a whole number of at least 0; received {value!r}")


def is_share(_: object, attribute: Any, value: Any) -> None:
    """Refuse a share outside (0, 1]."""
    if not _is_a(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{attribute.name} must be in (0, 1]; received {value!r}")


def can_weigh(value: Any) -> bool:
    """Whether it is a finite number of at least 0."""
    return _is_a(value, int | float) and 0 <= value < inf


def is_weight(_: object, attribute: Any, value: Any) -> None:
    """Refuse what is no finite number of at least 0."""
    if not can_weigh(value):
        raise ValueError(f"{attribute.name} must be a number of at least 0; received {value!r}")


def check_labels(target: Tensor, shape: tuple[str, ...], classes: int, ignore: int | None = None) -> None:
    """Refuse labels of another shape or type than classes have, and numbers that are none of them; on the host."""
    most = f"0 to {classes - 1}, one for each of the network's {classes} outputs"
    if target.dtype not in (torch.int64, torch.uint8):
        received = str(target.dtype).removeprefix("torch.")
        raise ValueError(f"labels must be whole numbers (int64), {most}; received {received}")
    if target.dim() != len(shape):
        raise ValueError(f"labels must have shape ({', '.join(shape)}); received {tuple(target.shape)}")
    if not target.numel():
        raise ValueError("it holds no images")
    low, high = target.aminmax()
    if low < 0 or high >= classes:
        _check_all(target, classes, ignore, most)


def _check_all(target: Tensor, classes: int, ignore: int | None, most: str) -> None:
    outside = (target < 0) | (target >= classes)
    wrong = target[outside if ignore is None else outside & (target != ignore)]
    if len(wrong):
        but = "" if ignore is None else f", or {ignore} for none"
        raise ValueError(f"labels must be {most}{but}; received {wrong[0].item()}")


def _is_a(value: Any, types: Any) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)
