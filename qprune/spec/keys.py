"""The keys of a table of a spec: what the checker judges by, error sentences list and the reference shows."""

import inspect
import re
from functools import cache
from typing import Any

import attrs
from attrs import frozen

from qprune.spec.values import key_of, words_of


@frozen
class Key:
    """One key."""

    name: str  # as it is written in TOML
    attribute: Any  # the field of the class that holds its value
    about: str  # what it means, from the docstring of the class; empty where docstrings are stripped

    @property
    def needed(self) -> bool:
        """Whether a table without it is refused."""
        return self.attribute.default is attrs.NOTHING

    @property
    def free(self) -> bool:
        """Whether it is no key itself but holds every key that has no field of its own."""
        return bool(self.attribute.metadata.get("free"))

    @property
    def default(self) -> Any:
        """Its value where it is left out."""
        default = self.attribute.default
        return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]

    @property
    def words(self) -> str:
        """What its value must be, in the words of the error for another one; empty where the field is not judged."""
        return words_of(self.attribute.validator)


@cache
def keys_of(cls: type) -> dict[str, Key]:
    """The keys of the table that a class of this room stands for, by name and in the order of its fields."""
    about = _explained(inspect.getdoc(cls) or "")
    fields = attrs.fields(attrs.resolve_types(cls))
    return {key_of(field): Key(key_of(field), field, about.get(field.name, "")) for field in fields}


def _explained(docstring: str) -> dict[str, str]:
    """What the sections ``Attributes`` and ``Args`` of a docstring say of each name, each as one line."""
    sections = re.findall(r"^(?:Attributes|Args):\n((?: +.*\n?|\n(?= ))+)", docstring, re.MULTILINE)
    entries = re.findall(r"^    (\w+): ((?:.*\n?)(?: {8}.*\n?)*)", "".join(sections), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
