"""A spec as tables, before it is checked: where each value came from, and how files build on each other."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import define, field

from qprune.spec.values import Table

KeyPath: TypeAlias = tuple[str | int, ...]

# these describe one file and are not handed on through `extends`
OWN_KEYS = ("name", "about", "published", "aka")


@define
class Document:
    """The tables of a spec and the origin of each value."""

    table: Table  # the top-level table
    origins: dict[KeyPath, str] = field(factory=dict)  # key path -> the file or override that wrote it last
    mistakes: list[str] = field(factory=list)  # lines about the form of the files, found so far

    @classmethod
    def of(cls, table: Table, origin: str) -> "Document":
        """A document whose values all have one origin; an empty string for none."""
        return cls(table, dict.fromkeys(_paths(table), origin))

    def origin(self, path: KeyPath) -> str:
        """The file that the value at ``path`` came from, or else the innermost table around it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "")

    def on(self, base: "Document") -> "Document":
        """This document over another: tables merge key by key, everything else replaces."""
        inherited = {key: value for key, value in base.table.items() if key not in OWN_KEYS}
        return Document(merge(inherited, self.table), base.origins | self.origins, base.mistakes + self.mistakes)

    def has(self, path: KeyPath) -> bool:
        """Whether there is a value at ``path``."""
        value: Any = self.table
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return False
        return True


def _paths(table: Mapping[str, Any], path: KeyPath = ()) -> list[KeyPath]:
    below = [_paths(value, (*path, key)) for key, value in table.items() if isinstance(value, Mapping)]
    return [path, *((*path, key) for key in table), *(found for paths in below for found in paths)]


def merge(base: Table, over: Table) -> Table:
    """Lay one table over another: tables merge key by key, everything else replaces.

    A table that changes the inherited ``name`` or ``kind`` is another thing (another optimizer, another data set), so
    it replaces the inherited one whole; ``arch`` replaces inherited ``layers`` and the reverse.
    """
    gone = {other for key in over for other in replaced(base, key)}
    kept = {key: value for key, value in base.items() if key not in gone}
    return kept | {key: _merged(kept.get(key), value) for key, value in over.items()}


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping) or _is_another(base, over):
        return over
    return merge(dict(base), dict(over))


def _is_another(base: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return any(key in base and key in over and base[key] != over[key] for key in ("name", "kind"))


def replaced(table: Table, key: str) -> list[str]:
    """The keys of ``table`` that go when ``key`` comes: ``layers`` with ``arch``; everything else with ``layers``."""
    if key == "arch":
        return ["layers"] if "layers" in table else []
    return [other for other in table if other != "layers"] if key == "layers" and "arch" in table else []
