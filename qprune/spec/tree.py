"""The list of specs as a tree."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from qprune.errors import SpecError
from qprune.escaping import visible
from qprune.spec.finding import ListedSpec, list_specs
from qprune.spec.values import shown
from qprune.spelling import nearest

FOLDED = 16  # specs in a folder, of which more are counted only


def spec_tree(part: str = "", full: bool = True) -> str:
    """The list as a tree: folders are indented, and each spec has its line with ``about`` and, in brackets, ``aka``.

    Args:
        part: show only specs that have this in their name, also with ``aka`` in place of its last component.
        full: also every spec of a folder with more than 16, which otherwise is one line unless ``part`` is given.

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
    most = len(fitting) if full or part else FOLDED
    told = f"\n\n{len(fitting)} specs. Those of a part: qprune list PART. All of them: qprune list --full."
    return "\n".join(_tree(fitting, most)) + ("" if full or part else told)


def _tree(specs: Sequence[ListedSpec], most: int) -> Iterator[str]:
    above: list[str] = []
    for folder, group in groupby(specs, lambda spec: spec.name.rpartition("/")[0]):
        inside = list(group)
        folders = folder.split("/") if folder else []
        for depth, name in enumerate(folders, 1):
            if above[:depth] != folders[:depth]:
                counted = f"  {len(inside)} specs" if depth == len(folders) and len(inside) > most else ""
                yield "  " * (depth - 1) + name + counted
        if len(inside) <= most:
            yield from _lines(inside, "  " * len(folders))
        above = folders


def _lines(specs: Sequence[ListedSpec], indent: str) -> Iterator[str]:
    lasts = [spec.name.rpartition("/")[2] for spec in specs]
    width = max(map(len, lasts))
    for last, spec in zip(lasts, specs, strict=True):
        aka = f" [{spec.aka}]" if spec.aka not in (None, last) else ""
        yield f"{indent}{last:<{width}}  {visible(spec.about)}{visible(aka)}".rstrip()
