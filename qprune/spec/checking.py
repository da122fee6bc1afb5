"""From tables to a checked spec, with every mistake as one line: one walk, and the fields' own validators judge."""

from collections.abc import Mapping
from itertools import chain
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

import attrs

from qprune.errors import SpecError, as_lines
from qprune.schedules import PruneSchedule, QuantizeFrom, Schedule
from qprune.schedules.tables import KINDS
from qprune.spec.document import Document, KeyPath
from qprune.spec.keys import Key, keys_of
from qprune.spec.lines import Mistake, lines, missing, unknown
from qprune.spec.network import SCHEDULE_OPTIONS, LayerSpec, ModelSpec
from qprune.spec.rules import LIFTED, QuantizeRule
from qprune.spec.task import TaskSpec
from qprune.spec.values import Table, listed, shown
from qprune.spelling import nearest

T = TypeVar("T")


def check(document: Document, kind: type[T]) -> T:
    """Make the spec, or the rules, that a document describes."""
    found: list[Mistake] = []
    spec: T = _read(kind, document.table, (), found)
    all_lines = document.mistakes + lines(found, document)
    if all_lines:
        raise SpecError(as_lines(all_lines))
    return spec


def _read(cls: type, value: Any, path: KeyPath, found: list[Mistake]) -> Any:
    """The value that a table describes; what is wrong with it is added to ``found``."""
    if not isinstance(value, Mapping):
        return value  # the validator of the field says what it must be
    try:
        table = _arranged(cls, dict(value))
    except SpecError as error:
        found.append(Mistake(str(error), path))
        return None
    values, wrong = _parts(cls, table, path)
    own: list[Mistake] = []
    if not any(wrong.values()):
        try:
            return cls(**values)
        except ValueError as error:  # the first mistake, of the values together or of one that the class converted
            own = [Mistake(str(error), path, _lacking(cls, table))]
    for key in keys_of(cls).values():
        if key.name in table and not wrong[key.name]:
            wrong[key.name] = _judged(key, values[key.attribute.name], _inside(path, key))
    found += [*chain.from_iterable(wrong.values())] or own
    return None


def _parts(cls: type, table: Table, path: KeyPath) -> tuple[Table, dict[str, list[Mistake]]]:
    """The arguments of a class, and for each key what is wrong below it, with it missing, or with it being there."""
    values: Table = {}
    wrong: dict[str, list[Mistake]] = {name: [] for name in keys_of(cls)}
    for name, key in keys_of(cls).items():
        if name in table:
            values[key.attribute.name] = _below(key, table[name], _inside(path, key), wrong[name])
        elif key.needed:
            wrong[name].append(missing(cls, (*path, name)))
    strangers = sorted(str(key) for key in table if key not in wrong)
    return values, wrong | {key: [unknown(cls, key, path)] for key in strangers}


def _lacking(cls: type, table: Table) -> tuple[str, ...]:
    """The keys of a schedule that say when it acts, as far as they are not there: one of them may be misspelt."""
    moments: tuple[str, ...] = getattr(cls, "moments", ())
    return tuple(key for key in (*moments, "finish") if key not in table) if moments else ()


def _inside(path: KeyPath, key: Key) -> KeyPath:
    return path if key.free else (*path, key.name)


def _below(key: Key, value: Any, path: KeyPath, found: list[Mistake]) -> Any:
    """The value of a field, with what its tables describe in place of them."""
    if not isinstance(value, Mapping | list | tuple):
        return value
    kind = _needed(key.attribute.type)
    if kind in (PruneSchedule, QuantizeFrom):
        return _schedule(value, get_args(kind) or (kind,), path, found)
    if key.free:
        return {
            name: _schedule(option, get_args(Schedule), (*path, name), found) if name in SCHEDULE_OPTIONS else option
            for name, option in dict(value).items()
        }
    if get_origin(kind) is tuple and attrs.has(get_args(kind)[0]) and not isinstance(value, Mapping):
        return tuple(_entry(get_args(kind)[0], item, (*path, index), found) for index, item in enumerate(value))
    return _read(kind, value, path, found) if attrs.has(kind) else value


def _needed(kind: Any) -> Any:
    """The type of a field that may be None, where it is something."""
    kinds = [each for each in get_args(kind) if each is not NoneType]
    return kinds[0] if NoneType in get_args(kind) and len(kinds) == 1 else kind


def _entry(cls: type, item: Any, path: KeyPath, found: list[Mistake]) -> Any:
    if not isinstance(item, Mapping | cls):
        found.append(Mistake(f"An entry of this list must be a table; received {shown(item)}", path))
    return _read(cls, item, path, found)


def _schedule(value: Any, classes: tuple[type, ...], path: KeyPath, found: list[Mistake]) -> Any:
    if not isinstance(value, Mapping):
        return value
    kinds = {kind: cls for kind, cls in KINDS.items() if cls in classes}
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        sentence = f"kind must be {listed(kinds)}; received {shown(kind)}{nearest(kind, kinds)}"
        found.append(Mistake(sentence, (*path, "kind")))
        return None
    return _read(kinds[kind], {key: item for key, item in value.items() if key != "kind"}, path, found)


def _judged(key: Key, value: Any, path: KeyPath) -> list[Mistake]:
    """The error of a field's validator for a value as it was written, before the class converts it."""
    try:
        if key.attribute.validator:
            key.attribute.validator(None, key.attribute, value)
    except ValueError as error:
        return [Mistake(str(error), path)]
    return []


def _arranged(cls: type, table: Table) -> Table:
    """Bring a table as people write it into the form of its class."""
    if cls in LIFTED:
        return _with_schedule(cls, table)
    if cls in (ModelSpec, LayerSpec, TaskSpec):
        own = {key.name for key in keys_of(cls).values() if not key.free}
        options = {key: value for key, value in table.items() if key not in own}
        return {key: value for key, value in table.items() if key in own} | {"options": options}
    return table


def _with_schedule(cls: type, rule: Table) -> Table:
    lifted = {key: rule.pop(key) for key in LIFTED[cls] if key in rule}
    schedule = rule.get("schedule", {"kind": "quantize-from"} if cls is QuantizeRule else None)
    if not isinstance(schedule, Mapping):
        return rule
    twice = sorted(set(schedule) & set(lifted))
    if twice:
        raise SpecError(f"{twice[0]} must be given once; received one on the rule and one in its schedule")
    return rule | {"schedule": dict(schedule) | lifted}
