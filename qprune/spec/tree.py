"""The list of specs as a tree."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from qprune.errors import SpecError
from qprune.escaping import visible
from qprune.spec.finding import ListedSpec, list_specs
from qprune.spec.values import shown
from qprune.spelling import nearest


def spec_tree(part: str = "") -> str:
    """The list as a tree: folders are indented, and each spec has its line with ``about`` and, in brackets, ``aka``.

    Args:
        part: show only specs that have this in their name, also with ``aka`` in place of its last component.

    Raises:
        SpecError: if there are none, with the nearest name.

    Example:
        >>> print(spec_tree("cifar10/base"))
        cifar10
          baseline  MobileNetV2 at half width on 10,000 CIFAR-10 photos, dense, from scratch.
    """
    specs = list_specs()
    fitting = [spec for spec in specs if any(part in full for full in spec.names)]
    if part and not fitting:
        words = {word for spec in specs for full in spec.names for word in full.split("/")}
        raise SpecError(f"No spec has {shown(part)} in its name{nearest(part, sorted(words))}.")
    return "\n".join(_tree(fitting))


def _tree(specs: Sequence[ListedSpec]) -> Iterator[str]:
    above: list[str] = []
    for folder, inside in groupby(specs, lambda spec: spec.name.rpartition("/")[0]):
        folders = folder.split("/") if folder else []
        for depth, name in enumerate(folders, 1):
            if above[:depth] != folders[:depth]:
                yield "  " * (depth - 1) + name
        yield from _lines(list(inside), "  " * len(folders))
        above = folders


def _lines(specs: Sequence[ListedSpec], indent: str) -> Iterator[str]:
    lasts = [spec.name.rpartition("/")[2] for spec in specs]
    width = max(map(len, lasts))
    for last, spec in zip(lasts, specs, strict=True):
        aka = f" [{spec.aka}]" if spec.aka not in (None, last) else ""
        yield f"{indent}{last:<{width}}  {visible(spec.about)}{visible(aka)}".rstrip()
