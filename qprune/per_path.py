"""`PerPath`: one number for each layer, as a table from patterns on module paths, of which the narrowest decides."""

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from attrs import field, frozen


@frozen(repr=False)
class PerPath:
    """Numbers by pattern, as a rule's ``sparsity = { "stage1.*" = 0.3, "stage4.*" = 0.8, "*" = 0.5 }``.

    A layer takes the number of the narrowest pattern that matches its module path: the one that all others that match
    it match as well, read as text. So ``"*"`` is for all that no other pattern matches, and ``"stage1.0.conv"`` stands
    before ``"stage1.*"``. The order in which they are written does not matter, as in TOML it never does; two tables
    with the same entries are equal.

    Attributes:
        entries: pairs of a pattern, with ``*`` and ``?`` as in file names, and its number.

    Example:
        >>> table = per_path({"stage1.*": 0.3, "*": 0.5})
        >>> table.at("stage1.0.conv"), table.at("stem")
        (0.3, 0.5)
    """

    entries: tuple[tuple[str, Any], ...] = field(eq=frozenset)

    def deciding(self, path: str) -> tuple[str, ...]:
        """The narrowest patterns that match ``path``: one, none, or several of which none is narrower than the others.

        Example:
            >>> per_path({"*.conv": 1, "stage1.*": 2, "*": 3}).deciding("stage1.conv")
            ('*.conv', 'stage1.*')
        """
        matching = [pattern for pattern, _ in self.entries if fnmatchcase(path, pattern)]
        return tuple(one for one in matching if not any(_narrower(other, one) for other in matching))

    def at(self, path: str) -> Any:
        """The number for the layer at ``path``.

        Raises:
            KeyError: if no pattern decides, or several do.
        """
        (pattern,) = self.deciding(path) or (path,)
        return self.to_table()[pattern]

    def to_table(self) -> dict[str, Any]:
        """The entries as a plain dict, in the order in which they were written."""
        return dict(self.entries)

    def __repr__(self) -> str:
        return repr(self.to_table())


def _narrower(one: str, other: str) -> bool:
    return fnmatchcase(one, other) and not fnmatchcase(other, one)


def per_path(value: Any) -> Any:
    """A table becomes a `PerPath`; anything else stays as it is, and a validator judges both with `problems`.

    Example:
        >>> per_path(0.5), per_path({"*": 0.5})
        (0.5, {'*': 0.5})
    """
    return PerPath(tuple(value.items())) if isinstance(value, Mapping) else value


def one_number(value: Any, name: str) -> Any:
    """The number itself, where one is needed.

    Raises:
        ValueError: if it is a table, of which only a rule knows which layers it is for.

    Example:
        >>> one_number(0.5, "sparsity")
        0.5
    """
    if isinstance(value, PerPath):
        raise ValueError(
            f"{name} is a table from patterns on module paths, which a rule of a spec or of swap applies; a schedule "
            "of a single layer needs one number"
        )
    return value


def problems(value: Any, holds: Callable[[Any], bool]) -> Iterator[str]:
    """What is wrong with a number, or with a table of them, each as the end of a sentence: ``received ...``.

    Args:
        value: a number, a `PerPath`, or whatever was written in place of them.
        holds: whether a value is such a number.

    Example:
        >>> list(problems({"stage1.*": 1.5}, lambda v: 0 <= v < 1))
        ['received 1.5 for "stage1.*"']
    """
    table = value.to_table() if isinstance(value, PerPath) else value
    if not isinstance(table, Mapping):
        if not holds(table):
            yield f"received {table!r}"
        return
    if not table:
        yield 'received a table without entries; give it patterns on module paths, such as "stage1.*"'
    for pattern, number in table.items():
        if isinstance(number, Mapping):
            yield f"received a table for {pattern}; a pattern with dots stands in quotes"
        elif not isinstance(pattern, str) or not pattern or not holds(number):
            yield f'received {number!r} for "{pattern}"'
