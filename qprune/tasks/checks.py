"""Validators of the tasks' fields; each sentence names the field, the rule and the value received."""

from math import inf
from typing import Any


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


def is_weight(_: object, attribute: Any, value: Any) -> None:
    """Refuse what is no finite number of at least 0."""
    if not _is_a(value, int | float) or not 0 <= value < inf:
        raise ValueError(f"{attribute.name} must be a number of at least 0; received {value!r}")


def _is_a(value: object, types: Any) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)
