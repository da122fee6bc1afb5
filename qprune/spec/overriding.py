"""Overrides: ``train.batch=32`` on top of whatever the files say."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qprune.errors import SpecError, as_lines
from qprune.escaping import visible
from qprune.spec.document import Document, KeyPath, replaced
from qprune.spec.lines import dotted
from qprune.spec.parsing import PARTS, parse_toml
from qprune.spec.values import shown


def override(document: Document, overrides: Mapping[str, Any] | Sequence[str]) -> Document:
    """Set values in a document, as in ``["train.batch=32"]`` or ``{"train.batch": "32"}``, and return it.

    Text is read as TOML, or as a string if it is none. A misspelt key is found when the document is checked.
    """
    wrong = []
    for key, value, origin in _pairs(overrides):
        try:
            _set(document, key, value, origin)
        except LookupError as error:
            wrong.append(f"{error.args[0]} ({origin}).")
    if wrong:
        raise SpecError(as_lines(wrong))
    return document


def _pairs(overrides: Mapping[str, Any] | Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield key, _parsed(value) if isinstance(value, str) else value, _origin(f"{key}={value}")
        return
    for text in [overrides] if isinstance(overrides, str) else overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise SpecError(f"An override must read key.path=value; received {shown(text)}.")
        yield key.strip(), _parsed(value.strip()), _origin(text)


def _origin(text: str) -> str:
    return f"override {visible(' '.join(text.split()))[:200]}"  # a mistake is one line


def _parsed(text: str) -> Any:
    try:
        table = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return table["value"] if len(table) == 1 else text


def _set(document: Document, key: str, value: Any, origin: str) -> None:
    target: Any = document.table
    path: KeyPath = ()
    *above, last = re.sub(r"\[(-?\d+)\]", r".\1", key).split(".")
    if len(above) >= PARTS:
        raise LookupError(f"A key has at most {PARTS} parts; received {len(above) + 1:,}")
    for text in above:
        step = _step(target, text, path)
        path = (*path, step)
        if not document.has(path):
            target[step] = {}
            document.origins[path] = origin
        target = target[step]
    step = _step(target, last, path)
    for other in replaced(target, step) if isinstance(target, dict) else ():
        del target[other]
    target[step] = value
    document.origins[(*path, step)] = origin


def _step(target: Any, text: str, path: KeyPath) -> Any:
    if isinstance(target, dict):
        return text
    if not isinstance(target, list):
        raise LookupError(f'{dotted(path)} is no table and has no "{text}"')
    if not text.isdecimal() or int(text) >= len(target):
        entries = "1 entry" if len(target) == 1 else f"{len(target)} entries"
        raise LookupError(f'{dotted(path)} has {entries}, counted from 0, and none is "{text}"')
    return int(text)
