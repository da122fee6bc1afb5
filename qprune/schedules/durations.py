"""Durations: a number of optimizer steps, or a string such as ``"0.5ep"`` or ``"800it"``; and shares of a run."""

import math
import re
from fractions import Fraction
from numbers import Real
from typing import TypeAlias

Duration: TypeAlias = int | str

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,12})?)%")
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


def check_finish(value: object) -> Duration:
    """Return ``value`` if it is a share of the run such as ``"35%"`` or a duration, of some steps."""
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    try:
        fits = 0 < Fraction(match[1]) <= 100 if match else not is_zero(check_duration(value))
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            'must be a share of the run such as "35%", above "0%" and at most "100%", or a duration of at least one '
            f'step such as "7ep", "800it" or 800; received {value!r}'
        )
    return value  # type: ignore[return-value]  # an int or a str, as was checked


def is_zero(duration: Duration) -> bool:
    """Whether a duration is one of no steps, in whatever unit.

    Example:
        >>> is_zero("0.0ep"), is_zero(3)
        (True, False)
    """
    return float(duration[:-2] if isinstance(duration, str) else duration) == 0


def to_steps(duration: Duration, steps_per_epoch: int | None = None, steps: int | None = None) -> int:
    """Turn a duration, or a share of the run, into optimizer steps: the one place where epochs and shares become steps.

    Epochs and shares are rounded to the nearest step, halves to even (391 * 0.5 = 195.5 becomes 196), and never to less
    than one step; this is the published experiments' rule, so their end steps come out exactly. Plain numbers and
    ``"it"`` are exact.

    Args:
        duration: an int, ``"800it"``, ``"0.5ep"`` or ``"35%"``.
        steps_per_epoch: optimizer steps per epoch, needed for ``"ep"``.
        steps: optimizer steps of the run, needed for ``"%"``.

    Raises:
        ValueError: if it is neither, in epochs where ``steps_per_epoch`` is not known or no number above 0, or a share
            where ``steps`` is not known.

    Example:
        >>> to_steps("0.5ep", 391), to_steps("800it"), to_steps(7), to_steps("35%", steps=1000)
        (196, 800, 7, 350)
    """
    share = _SHARE.fullmatch(duration) if isinstance(duration, str) else None
    if share:
        return _share_of(steps, share)
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


def _share_of(steps: int | None, share: re.Match[str]) -> int:
    if steps is None:
        raise ValueError(
            f"{share[0]!r} is a share of the run, whose length is not known here: pass steps, its optimizer steps, or "
            'give a duration such as "7ep" or "800it"'
        )
    return max(1, round(steps * Fraction(share[1]) / 100))  # floats round some halves to the wrong side


def in_epochs(steps: int, steps_per_epoch: int | None) -> str:
    """Write steps for people: ``"196 (0.50 ep)"``; only the step where the epoch length is unknown."""
    if not steps_per_epoch or not math.isfinite(steps):
        return str(steps)
    return f"{steps} ({steps / steps_per_epoch:.2f} ep)"
