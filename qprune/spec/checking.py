"""From tables to a checked spec, with every mistake as one line: cattrs walks, the fields' own validators judge."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, TypeVar, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from qprune.errors import SpecError, as_lines
from qprune.schedules import PruneSchedule, QuantizeFrom, Schedule
from qprune.schedules.tables import KINDS
from qprune.spec.document import Document, KeyPath
from qprune.spec.lines import Mistake, lines, missing, unknown
from qprune.spec.network import SCHEDULE_OPTIONS, LayerSpec, ModelSpec
from qprune.spec.rules import LIFTED, QuantizeRule
from qprune.spec.task import TaskSpec
from qprune.spec.values import Table, key_of, listed, shown
from qprune.spelling import nearest

T = TypeVar("T")


def check(document: Document, kind: type[T]) -> T:
    """Make the spec, or the rules, that a document describes.

    Raises:
        SpecError: with one line for every mistake.

    Example:
        >>> optimizer = {"name": "sgd", "lr": 0.1}
        >>> train = {"length": "3ep", "batch": 64, "optimizer": optimizer}
        >>> check(Document.of({"data": {"name": "digits"}, "model": {"arch": "lenet"}, "train": train}, ""), Spec).seed
        0
    """
    try:
        spec: T | None = _converter().structure(document.table, kind)
        found: list[Mistake] = []
    except ClassValidationError as error:
        spec, found = None, list(_mistakes(error, owner=kind))
    all_lines = document.mistakes + lines(found, document)
    if spec is None or all_lines:
        raise SpecError(as_lines(all_lines))
    return spec


@cache
def _converter() -> Converter:
    converter = Converter(detailed_validation=True)
    for scalar in (str, int, float, bool, dict):
        converter.register_structure_hook(scalar, _as_it_is)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is not None, _as_it_is)
    converter.register_structure_hook_func(_is_tuple_of_classes, partial(_structure_tuple, converter))
    converter.register_structure_hook_factory(attrs.has, partial(_class_hook, converter))
    return converter


def _as_it_is(value: Any, _: Any) -> Any:
    return value  # never converted: the field's validator sees what was written


def _is_tuple_of_classes(kind: Any) -> bool:
    return get_origin(kind) is tuple and attrs.has(get_args(kind)[0])


def _structure_tuple(converter: Converter, value: Any, kind: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    item_class = get_args(kind)[0]
    made, errors = [], []
    for index, item in enumerate(value):
        try:
            made.append(converter.structure(_table(item, item_class), item_class))
        except Exception as error:
            error.add_note(IterableValidationNote("", index, item_class))
            errors.append(error)
    if errors:
        raise IterableValidationError("", errors, tuple)
    return tuple(made)


def _table(item: Any, cls: type) -> Any:
    if isinstance(item, Mapping | cls):
        return item
    raise SpecError(f"An entry of this list must be a table; received {shown(item)}")


def _class_hook(converter: Converter, cls: type) -> Callable[[Any, Any], Any]:
    hooks: dict[str, Any] = {
        a.name: override(struct_hook=_field_hook(converter, a), rename=key_of(a)) for a in attrs.fields(cls)
    }
    from_dict: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **hooks)

    def structure(value: Any, _: Any) -> Any:
        return from_dict(_arranged(cls, dict(value)), cls) if isinstance(value, Mapping) else value

    return structure


def _field_hook(converter: Converter, attribute: Any) -> Callable[[Any, Any], Any]:
    def structure(value: Any, kind: Any) -> Any:
        if attribute.type in (PruneSchedule, QuantizeFrom):
            value = _structure_schedule(converter, value, get_args(attribute.type) or (attribute.type,))
        elif attribute.metadata.get("free"):
            value = _structure_options(converter, value)
        else:
            value = converter.structure(value, kind)
        if attribute.validator:
            attribute.validator(None, attribute, value)  # before the class converts: sentences show what was written
        return value

    return structure


def _structure_schedule(converter: Converter, value: Any, classes: tuple[type, ...]) -> Any:
    if not isinstance(value, Mapping):
        return value
    kinds = {kind: cls for kind, cls in KINDS.items() if cls in classes}
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise _noted(SpecError(f"kind must be {listed(kinds)}; received {shown(kind)}{nearest(kind, kinds)}"), "kind")
    return converter.structure({key: item for key, item in value.items() if key != "kind"}, kinds[kind])


def _structure_options(converter: Converter, options: Table) -> Table:
    made, errors = dict(options), []
    for name in set(SCHEDULE_OPTIONS) & set(options):
        try:
            made[name] = _structure_schedule(converter, options[name], get_args(Schedule))
        except Exception as error:
            errors.append(_noted(error, name))
    if errors:
        raise ClassValidationError("", errors, dict)
    return made


def _noted(error: Exception, key: str) -> Exception:
    error.add_note(AttributeValidationNote("", key, object))
    return error if isinstance(error, ClassValidationError) else ClassValidationError("", [error], dict)


def _arranged(cls: type, table: Table) -> Table:
    """Bring a table as people write it into the form of its class."""
    if cls in LIFTED:
        return _with_schedule(cls, table)
    if cls in (ModelSpec, LayerSpec, TaskSpec):
        own = {key_of(attribute) for attribute in attrs.fields(cls)} - {"options"}
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


def _mistakes(error: BaseException, path: KeyPath = (), owner: type = object) -> Iterator[Mistake]:
    if isinstance(error, ClassValidationError | IterableValidationError):
        owner = error.cl if isinstance(error, ClassValidationError) and error.cl is not dict else owner
        noted, rest = error.group_exceptions()
        for inner, note in noted:
            yield from _mistakes(inner, (*path, *_step(error.cl, note)), owner)
        for inner in rest:
            yield from _mistakes(inner, path, owner)
    elif isinstance(error, ForbiddenExtraKeysError):
        yield from (unknown(error.cl, key, path) for key in sorted(map(str, error.extra_fields)))
    elif isinstance(error, KeyError):
        yield missing(owner, path)
    else:
        yield Mistake(str(error), path)


def _step(cls: Any, note: Any) -> KeyPath:
    if isinstance(note, IterableValidationNote):
        return (note.index,)
    attribute = getattr(attrs.fields(cls), note.name) if attrs.has(cls) else None
    if attribute is None:
        return (note.name,)
    return () if attribute.metadata.get("free") else (key_of(attribute),)
