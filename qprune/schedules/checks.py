"""Validators of the schedules' fields; each sentence names the field, the rule and the value received."""

from collections.abc import Sequence
from typing import Any

from qprune.per_path import problems
from qprune.schedules.durations import check_duration, check_finish, to_steps

ORDERS = ("flow", "registration", "reversed")


def is_sparsity(_: object, __: object, value: Any) -> None:
    """Refuse a sparsity outside [0, 1), alone or in a table from patterns on module paths."""
    for problem in problems(value, _is_share):
        raise ValueError(f"sparsity must be in [0, 1); {problem}")


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def is_duration(_: object, attribute: Any, value: Any) -> None:
    """Refuse what is no duration."""
    try:
        check_duration(value)
    except ValueError as error:
        raise ValueError(f"{attribute.name} {error}") from None


def is_positive(_: object, attribute: Any, value: Any) -> None:
    """Refuse what is no duration, or one of no steps."""
    is_duration(_, attribute, value)
    if to_steps(value, 1) == 0:
        raise ValueError(f"{attribute.name} must be at least one step; received {value!r}")


def is_finish(_: object, attribute: Any, value: Any) -> None:
    """Refuse what is neither a share of the run nor a duration of at least one step."""
    try:
        check_finish(value)
    except ValueError as error:
        raise ValueError(f"{attribute.name} {error}") from None


def check_moments(moments: Sequence[str], received: Sequence[str]) -> None:
    """Refuse a schedule that has neither all of its moments nor a finish in place of them, or some of both."""
    if list(received) not in (list(moments), ["finish"]):
        raise ValueError(
            f'give {_listed(moments)}, or finish = "35%" (a share of the run) instead; received '
            f"{_listed(received) or 'neither'}"
        )


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def is_times(_: object, __: object, value: Any) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"times must be a whole number of at least 1; received {value!r}")


def is_order(_: object, __: object, value: Any) -> None:
    """Refuse an unknown order."""
    if value not in ORDERS:
        raise ValueError(f'order must be "flow", "registration" or "reversed"; received {value!r}')
