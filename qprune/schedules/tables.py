"""Schedules as TOML tables: ``{ kind = "layerwise", sparsity = 0.75, ... }`` and back."""

from typing import Any, TypeAlias

from attrs import NOTHING, fields

from qprune.schedules.pruning import Inherited, Layerwise, OneShot, Stepwise
from qprune.schedules.quantizing import QuantizeFrom
from qprune.spelling import nearest

Schedule: TypeAlias = OneShot | Stepwise | Layerwise | Inherited | QuantizeFrom

KINDS: dict[str, type] = {
    "inherited": Inherited,
    "layerwise": Layerwise,
    "one-shot": OneShot,
    "quantize-from": QuantizeFrom,
    "stepwise": Stepwise,
}


def from_table(table: dict[str, Any]) -> Schedule:
    """Make a schedule from its table.

    Raises:
        ValueError: for what is no table, an unknown or missing ``kind`` or key, or a value out of range.

    Example:
        >>> from_table({"kind": "one-shot", "sparsity": 0.5, "at": "2ep"})
        OneShot(sparsity=0.5, at='2ep', measure=1)
    """
    if not isinstance(table, dict):
        raise ValueError(f'a schedule must be a table such as {{"kind": "one-shot", ...}}; received {table!r}')
    kind, arguments = table.get("kind"), {key: value for key, value in table.items() if key != "kind"}
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(
            f"kind must be one of {', '.join(map(repr, KINDS))}; received {kind!r}{nearest(kind, KINDS, repr)}"
        )
    known = {f.name: f for f in fields(KINDS[kind])}
    for key in arguments:
        if key not in known:
            raise ValueError(f"unknown key {key!r} of a {kind} schedule{nearest(key, known, repr) or _has(known)}")
    missing = [name for name, f in known.items() if f.default is NOTHING and name not in arguments]
    if missing:
        raise ValueError(f"a {kind} schedule needs {' and '.join(map(repr, missing))}")
    schedule: Schedule = KINDS[kind](**arguments)
    return schedule


def to_table(schedule: Schedule) -> dict[str, Any]:
    """Write a schedule as a table that `from_table` reads back; options at their default are left out.

    Example:
        >>> to_table(OneShot(sparsity=0.5, at="2ep"))
        {'kind': 'one-shot', 'sparsity': 0.5, 'at': '2ep'}
    """
    kind = next(name for name, cls in KINDS.items() if cls is type(schedule))
    values = {
        f.name: getattr(schedule, f.name) for f in fields(type(schedule)) if getattr(schedule, f.name) != f.default
    }
    return {"kind": kind} | values


def _has(known: Any) -> str:
    return f"; it has {', '.join(map(repr, known))}" if known else "; it has no options"
