"""The kinds of schedules, and a schedule as a TOML table: ``{ kind = "layerwise", sparsity = 0.75, ... }``."""

from typing import Any, TypeAlias

from attrs import fields

from qprune.per_path import PerPath
from qprune.schedules.pruning import Inherited, Layerwise, OneShot, Stepwise
from qprune.schedules.quantizing import QuantizeFrom

Schedule: TypeAlias = OneShot | Stepwise | Layerwise | Inherited | QuantizeFrom

KINDS: dict[str, type] = {
    "inherited": Inherited,
    "layerwise": Layerwise,
    "one-shot": OneShot,
    "quantize-from": QuantizeFrom,
    "stepwise": Stepwise,
}


def to_table(schedule: Schedule) -> dict[str, Any]:
    """Write a schedule as a table that a spec may hold; options at their default are left out.

    Example:
        >>> to_table(OneShot(sparsity=0.5, at="2ep"))
        {'kind': 'one-shot', 'sparsity': 0.5, 'at': '2ep'}
    """
    kind = next(name for name, cls in KINDS.items() if cls is type(schedule))
    values = {
        f.name: getattr(schedule, f.name) for f in fields(type(schedule)) if getattr(schedule, f.name) != f.default
    }
    return {"kind": kind} | {name: v.to_table() if isinstance(v, PerPath) else v for name, v in values.items()}
