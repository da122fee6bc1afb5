"""Reading a spec: a name, a file and the files it extends, a dict, and overrides on top."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from os.path import realpath
from pathlib import Path
from typing import Any, TypeAlias

from qprune.errors import PlanError, SpecError
from qprune.spec.checking import check
from qprune.spec.document import Document
from qprune.spec.files import label, read_table
from qprune.spec.finding import find_spec, name_below_specs
from qprune.spec.network import FILES
from qprune.spec.overriding import override
from qprune.spec.rules import PruneRule, QuantizeRule, Rules
from qprune.spec.spec import Spec
from qprune.spec.values import Table, shown

FORMAT = 1
Overrides: TypeAlias = Mapping[str, Any] | Sequence[str]


def read_spec(source: Path | str | Mapping[str, Any] | Spec, overrides: Overrides = ()) -> Spec:
    """Read a spec and check it; every mistake is found and told at once.

    A file begins with ``format = 1``. With ``extends = "../base/mine.toml"`` it builds on another: tables merge key by
    key and arrays replace, except that a table with another ``name`` or ``kind`` (another optimizer, another data set)
    replaces the inherited one, and so do ``arch`` and ``layers`` each other. ``name``, ``about``, ``aka`` and
    ``published`` describe one file and are not inherited.

    Args:
        source: a path, the name of a spec or a unique part of one (see `find_spec`), a table, or a `Spec`.
        overrides: values that replace those of the source, ``["train.batch=32"]`` or ``{"train.batch": "32"}``. Entries
            of lists are counted from 0 (``"prune.0.sparsity=0.5"``); text is read as TOML, or as a string if it is
            none.

    Raises:
        SpecError: with one line for each mistake, as text and as the tuple ``mistakes``.

    Example:
        >>> read_spec("digits/baseline", ["train.batch=32"]).train.batch
        32
    """
    if isinstance(source, Spec) and not overrides:
        return source
    try:
        return check(override(_document(source), overrides), Spec)
    except RecursionError:
        raise SpecError("A spec is nested a few levels deep; received tables or lists that go on and on.") from None


def read_embedded(table: Mapping[str, Any]) -> Spec:
    """Check a spec that came in a file beside a trained network, where nothing may lead to another file.

    Args:
        table: as `spec_to_toml` or `Spec.to_dict` wrote it.

    Raises:
        SpecError: with one line for each mistake, or if it extends a file.

    Example:
        >>> read_embedded(read_spec("digits/baseline").to_dict()).seed
        0
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"A spec must be a table; received {shown(table)}.")
    if "extends" in table:
        base = shown(table["extends"])
        raise SpecError(f"A spec beside a network is whole and extends no file; received extends = {base}.")
    return read_spec(table)


@contextmanager
def mistakes_in(source: Path | str | Mapping[str, Any] | Spec) -> Iterator[None]:
    """Add the file to every mistake that is found in a spec after it was read.

    Args:
        source: what was given to `read_spec`; where it is no file, errors stay as they are.

    Example:
        >>> with mistakes_in("mine.toml"):
        ...     raise PlanError("act.output: pruning ends too late.")
        Traceback (most recent call last):
        qprune.errors.PlanError: act.output: pruning ends too late (mine.toml).
    """
    try:
        yield
    except (PlanError, SpecError) as error:
        if not isinstance(source, str | Path):
            raise
        file = label(_path(source))
        raise type(error)("\n".join(_with_file(line, file) for line in error.mistakes)) from error


def read_rules(
    prune: Sequence[PruneRule | Mapping[str, Any]] = (), quantize: Sequence[QuantizeRule | Mapping[str, Any]] = ()
) -> Rules:
    """Check rules that stand outside of a spec, such as those of `qprune.swap`.

    Args:
        prune: tables as under ``[[prune]]``, or `PruneRule`.
        quantize: tables as under ``[[quantize]]``, or `QuantizeRule`.

    Raises:
        SpecError: with one line for each mistake.

    Example:
        >>> site = {"types": ["Conv2d"], "at": "weight"}
        >>> read_rules(quantize=[{"sites": [site], "bits": 4, "start": 0}]).quantize[0].bits
        4
    """
    for kind, rules in (("prune", prune), ("quantize", quantize)):
        if not isinstance(rules, list | tuple):
            raise SpecError(f"{kind} must be a list of rules, each a table; received {shown(rules)}.")
    table = {"prune": [_copied(rule) for rule in prune], "quantize": [_copied(rule) for rule in quantize]}
    return check(Document.of(table, ""), Rules)


def _with_file(line: str, file: str) -> str:
    named, times = re.subn(r" in [^()]*\)\.?$", f" in {file}).", line)  # it ends with the spec's name
    return named if times else f"{line.rstrip('.')} ({file})."


def _copied(rule: Any) -> Any:
    return deepcopy(dict(rule)) if isinstance(rule, Mapping) else rule


def _document(source: Path | str | Mapping[str, Any] | Spec) -> Document:
    if isinstance(source, Spec):
        return Document.of(source.to_dict() | {"name": source.name}, "")
    if isinstance(source, Mapping):
        table = {"format": FORMAT} | deepcopy(dict(source))
        return _complete(Document.of(table, ""), Path.cwd(), ())
    path = _path(source)
    document = _load(path, ())
    document.table.setdefault("name", name_below_specs(path))
    return document


def _path(source: Path | str) -> Path:
    path = Path(source).expanduser()
    if isinstance(source, Path) or path.suffix == ".toml" or path.is_file():
        return path
    try:
        return find_spec(source)
    except SpecError:
        if path.is_dir():
            return path  # reading it says that it is a folder
        raise


def _load(path: Path, chain: tuple[Path, ...]) -> Document:
    if realpath(path) in map(realpath, chain):
        circle = " -> ".join(label(file) for file in (*chain, path))
        raise SpecError(f"extends goes in a circle: {circle}.")
    asked = f"extends in {label(chain[-1])}" if chain else ""
    table = _with_paths(read_table(path, asked), path.parent)
    return _complete(Document.of(table, label(path)), path.parent, (*chain, path))


def _with_paths(table: Table, folder: Path) -> Table:
    """The table of a file, in which files of weights are named from the folder that it lies in."""
    model = table.get("model")
    if not isinstance(model, dict):
        return table
    named = {key: model.get(key) for key in ("weights", "weights_backbone")}
    files = {key: value for key, value in named.items() if isinstance(value, str) and value.endswith(FILES)}
    whole = {key: str((folder / Path(value).expanduser()).absolute()) for key, value in files.items()}
    return table | {"model": model | whole}


def _complete(document: Document, folder: Path, chain: tuple[Path, ...]) -> Document:
    document.mistakes += _format_mistakes(document)
    document.table.pop("format", None)
    base = document.table.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str) or not base or "\0" in base:
        document.mistakes.append(_line(document, "extends", "extends must be the relative path of a file", base))
        return document
    return document.on(_load(folder / base, chain))


def _format_mistakes(document: Document) -> list[str]:
    found = document.table.get("format")
    if found is None:
        return [f"A spec must begin with format = {FORMAT} ({document.origin(('format',))})."]
    if found is True or found != FORMAT:
        return [_line(document, "format", f"format must be {FORMAT}, the only one this version reads", found)]
    return []


def _line(document: Document, key: str, rule: str, value: object) -> str:
    place = " in ".join(filter(None, (key, document.origin((key,)))))
    return f"{rule}; received {shown(value)} ({place})."
