"""Durations: a number of optimizer steps, or a string such as ``"0.5ep"`` or ``"800it"``."""

import math
import re
from numbers import Real
from typing import TypeAlias

Duration: TypeAlias = int | str

_TEXT = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ep|it)")  # more digits would overflow, and nobody trains so long


def check_duration(value: object) -> Duration:
    """Return ``value`` if it is a duration: an int >= 0, ``"0.5ep"`` (epochs) or ``"800it"`` (steps).

    Raises:
        ValueError: if it is anything else.

    Example:
        >>> check_duration("0.5ep")
        '0.5ep'
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12:
        return value
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if match and (match[2] == "ep" or "." not in match[1]):
        return value  # type: ignore[return-value]  # a str, as the match shows
    raise ValueError(f'must be a duration such as "0.5ep", "800it" or 800; received {value!r}')


def to_steps(duration: Duration, steps_per_epoch: int | None = None) -> int:
    """Turn a duration into optimizer steps: the one place where epochs become steps.

    Epochs are rounded to the nearest step, halves to even (391 * 0.5 = 195.5 becomes 196), and never to less than one
    step; this is the published experiments' rule, so their end steps come out exactly. Plain numbers and ``"it"`` are
    exact.

    Args:
        duration: an int, ``"800it"`` or ``"0.5ep"``.
        steps_per_epoch: optimizer steps per epoch, needed for ``"ep"``.

    Raises:
        ValueError: if it is no duration, or in epochs where ``steps_per_epoch`` is not known or no number above 0.

    Example:
        >>> to_steps("0.5ep", 391), to_steps("800it"), to_steps(7)
        (196, 800, 7)
    """
    check_duration(duration)
    if isinstance(duration, int):
        return duration
    number, unit = duration[:-2], duration[-2:]
    if unit == "it":
        return int(number)
    if steps_per_epoch is None:
        raise ValueError(f'{duration!r} counts epochs: pass steps_per_epoch, or give steps such as "800it"')
    length: object = steps_per_epoch  # whatever a loop of the user's own hands in
    if not isinstance(length, Real) or not 0 < float(length) < math.inf:
        raise ValueError(f"steps_per_epoch must be a number above 0, as len(loader) is; received {steps_per_epoch!r}")
    return max(1, round(steps_per_epoch * float(number)))


def in_epochs(steps: int, steps_per_epoch: int | None) -> str:
    """Write steps for people: ``"196 (0.50 ep)"``; only the step where the epoch length is unknown."""
    if not steps_per_epoch or not math.isfinite(steps):
        return str(steps)
    return f"{steps} ({steps / steps_per_epoch:.2f} ep)"
