"""What a value of a spec may be, and the sentence for what it may not: validators and converters."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from sys import float_info
from typing import Any, TypeAlias

from attrs import frozen

from qprune.errors import SpecError
from qprune.escaping import visible
from qprune.schedules.durations import check_duration, is_zero
from qprune.spelling import nearest

Table: TypeAlias = dict[str, Any]
Validator: TypeAlias = Callable[[Any, Any, Any], None]

MOST = 2**31 - 1  # images, batches, channels: what counts things in torch takes no more everywhere


def shown(value: object) -> str:
    """Write a value for a sentence as TOML would, cut after 80 characters.

    Example:
        >>> shown(["a", True, 1.5])
        '["a", true, 1.5]'
    """
    text = visible(_written(value))
    return text if len(text) <= 80 else text[:79] + "…"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{in_toml(str(key))} = {_written(item)}" for key, item in value.items()) + " }"
    return "nothing" if value is None else str(value)


def quoted(text: str) -> str:
    """Write text as TOML and JSON do, in double quotes."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def in_toml(key: str) -> str:
    """Write a key as TOML does, in quotes where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)


def listed(words: Iterable[str], last: str = "or") -> str:
    """Write words as a list in a sentence.

    Example:
        >>> listed(["a", "b", "c"])
        '"a", "b" or "c"'
    """
    *first, final = [f'"{word}"' for word in words]
    return f"{', '.join(first)} {last} {final}" if first else final


def key_of(attribute: Any) -> str:
    """The TOML key of an attrs field: its name, unless the metadata holds another ``key``."""
    return str(attribute.metadata.get("key", attribute.name))


@frozen
class Requirement:
    """A validator that can say what it asks for."""

    words: str  # what a value must be, as in "batch must be a whole number of at least 1"
    judge: Validator

    def __call__(self, instance: Any, attribute: Any, value: Any) -> None:  # noqa: D102 - what attrs calls
        self.judge(instance, attribute, value)


def words_of(validator: Any) -> str:
    """What a field's validator asks for, also where the field may be left empty; empty if it cannot say."""
    return str(getattr(getattr(validator, "validator", validator), "words", ""))


def must(holds: Callable[[Any], bool], be: str) -> Requirement:
    """A validator from a test and the words for it: ``<key> must be <be>; received <value>``."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        if not holds(value):
            raise SpecError(f"{key_of(attribute)} must be {be}; received {shown(value)}")

    return Requirement(be, validate)


def is_whole(value: object) -> bool:
    """Whether it is an int and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite float or an int that a float can hold, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def whole(low: int, high: int | None = None, *, most: int = MOST) -> Requirement:
    """An int from ``low`` to ``high``; without one to ``most``, which a sentence names only where it is passed."""
    last = most if high is None else high
    bounded = must(lambda v: is_whole(v) and low <= v <= last, f"a whole number from {low} to {last}")
    least = must(lambda v: is_whole(v) and low <= v, f"a whole number of at least {low}")

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if high is None:
            least(instance, attribute, value)
        bounded(instance, attribute, value)

    return Requirement(least.words if high is None else bounded.words, validate)


def number(be: str, holds: Callable[[float], bool] = lambda _: True) -> Requirement:
    """An int or finite float for which ``holds`` is true."""
    return must(lambda v: is_number(v) and holds(v), be)


def items(holds: Callable[[Any], bool], be: str) -> Requirement:
    """A list or tuple whose entries all pass ``holds``."""
    return must(lambda v: isinstance(v, list | tuple) and all(map(holds, v)), be)


def one_of(*words: str) -> Requirement:
    """One of a few words; the sentence names the nearest."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        if value not in words:
            neighbour = nearest(value, words)
            raise SpecError(f"{key_of(attribute)} must be {listed(words)}; received {shown(value)}{neighbour}")

    return Requirement(listed(words), validate)


def duration(least: int = 0) -> Requirement:
    """A duration (an int, ``"800it"`` or ``"0.5ep"``); ``least = 1`` refuses one of no steps."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        try:
            check_duration(value)
        except ValueError as error:
            raise SpecError(f"{key_of(attribute)} {error}") from None
        if least and is_zero(value):
            raise SpecError(f"{key_of(attribute)} must be at least one step; received {shown(value)}")

    return Requirement("a duration of at least one step" if least else "a duration", validate)


def _durations(_: Any, attribute: Any, value: Any) -> None:
    """A list or tuple of durations."""
    if not isinstance(value, list | tuple):
        raise SpecError(f'{key_of(attribute)} must be a list of durations such as ["60ep"]; received {shown(value)}')
    for item in value:
        duration()(None, attribute, item)


durations = Requirement('a list of durations such as ["60ep"]', _durations)


def as_tuple(value: Any) -> Any:
    """A list becomes a tuple; anything else stays for the validator to judge."""
    return tuple(value) if isinstance(value, list) else value


def as_float(value: Any) -> Any:
    """An int becomes a float (or a list a tuple of floats); anything else stays for the validator to judge."""
    if isinstance(value, list | tuple):
        return tuple(map(as_float, value))
    return float(value) if is_whole(value) and abs(value) < 1e300 else value


WORD = must(lambda v: isinstance(v, str) and v.strip() != "", "a string that is not empty")
STRINGS = items(lambda v: isinstance(v, str) and v != "", "a list of strings")
WHOLES = items(is_whole, "a list of whole numbers")
SWITCH = must(lambda v: isinstance(v, bool), "true or false")
TABLE = must(lambda v: isinstance(v, dict) and all(isinstance(key, str) for key in v), "a table")
SHARE = number("a number in [0, 1)", lambda v: 0 <= v < 1)
POSITIVE = number("a number greater than 0", lambda v: v > 0)
NOT_NEGATIVE = number("a number of at least 0", lambda v: v >= 0)
