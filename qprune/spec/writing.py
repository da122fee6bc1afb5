"""Spec to plain tables and to TOML; reading either gives an equal spec."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, get_args

import attrs
import toml

from qprune.errors import SpecError
from qprune.per_path import PerPath
from qprune.schedules import Schedule
from qprune.schedules import to_table as schedule_to_table
from qprune.spec.rules import LIFTED, QuantizeRule
from qprune.spec.spec import Spec
from qprune.spec.values import Table, in_toml, key_of, quoted


def spec_to_toml(spec: Spec) -> str:
    """Write a spec as one self-contained TOML file; values at their default are left out.

    Raises:
        SpecError: if an option is None, which TOML cannot hold.

    Example:
        >>> from qprune.spec import read_spec
        >>> spec_to_toml(read_spec("digits/baseline")).splitlines()[:2]
        ['format = 1', 'name = "digits/baseline"']
    """
    table = {"format": 1, "name": spec.name} | to_table(spec)
    heads = {key: value for key, value in table.items() if not isinstance(value, dict | list)}
    texts = [
        _lines(heads),
        *(text for key, value in table.items() if key not in heads for text in _sections(key, value)),
    ]
    return "\n".join(texts)


def _sections(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from (f"[[{key}]]\n{_lines(item)}" for item in value)
        return
    layers = value.get("layers", []) if key == "model" else []
    rest = {name: item for name, item in value.items() if item is not layers}
    if rest:
        yield f"[{key}]\n{_lines(rest)}"
    yield from _sections(f"{key}.layers", layers)


def _lines(table: Table) -> str:
    encoder = _Encoder()
    return "".join(f"{in_toml(key)} = {encoder.dump_value(value)}\n" for key, value in table.items())


def to_table(spec: Any) -> Table:
    """A spec class as a plain table, in the form in which people write it."""
    table: Table = {}
    for attribute in attrs.fields(type(spec)):
        value = getattr(spec, attribute.name)
        if value != _default(attribute):
            table |= _plain(value) if attribute.metadata.get("free") else {key_of(attribute): _plain(value)}
    return _lifted(type(spec), table)


def _default(attribute: Any) -> Any:
    default = attribute.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, get_args(Schedule)):
        return schedule_to_table(value)
    if isinstance(value, PerPath):
        return value.to_table()
    if attrs.has(type(value)):
        return to_table(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else deepcopy(value)


def _lifted(cls: type, table: Table) -> Table:
    if cls not in LIFTED:
        return table
    schedule = table.pop("schedule")
    key = LIFTED[cls][0]
    on_rule = {key: schedule.pop(key)} if key in schedule else {}
    rest = {} if cls is QuantizeRule and len(schedule) == 1 else {"schedule": schedule}
    first = {name: table[name] for name in ("sites", "bits") if name in table}
    return first | on_rule | table | rest


class _Encoder(toml.TomlEncoder):
    """toml's values, with tables in one line and strings as JSON writes them (toml loses control characters)."""

    def __init__(self) -> None:
        super().__init__()
        self.dump_funcs.update({str: quoted, float: repr, dict: self._inline, type(None): _refuse})

    def _inline(self, table: Table) -> str:
        return "{ " + ", ".join(f"{in_toml(key)} = {self.dump_value(value)}" for key, value in table.items()) + " }"

    def dump_list(self, v: Any) -> str:
        texts = [str(self.dump_value(item)) for item in v]
        if len(texts) > 1 and isinstance(v[0], dict):
            return "[\n    " + ",\n    ".join(texts) + ",\n]"
        return "[" + ", ".join(texts) + "]"


def _refuse(_: None) -> str:
    raise SpecError("TOML cannot hold None: leave the option out")
