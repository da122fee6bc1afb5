"""Plain-text tables: aligned columns, and numbers that people can read."""

from collections.abc import Sequence
from html import escape
from typing import Any

from attrs import asdict

from qprune.escaping import visible

PREFIXES = ("", "k", "M", "G", "T", "P")


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", footer: int = 0, broken: bool = False
) -> str:
    """Lines of aligned columns, two spaces apart, with a rule under the header; control characters are written out.

    Args:
        header: the columns' names.
        rows: the cells, as many as there are columns.
        right: one character per column, ``"r"`` for right-aligned; the rest is left-aligned.
        footer: how many of the last rows (totals) stand under a second rule.
        broken: whether the names of columns are broken into two lines, at their last space.

    Raises:
        ValueError: if a row has another number of cells than the header.

    Example:
        >>> print(table(["layer", "MACs"], [["stem", "1,024"], ["head", "64"]], right="lr"))
        layer   MACs
        ------------
        stem   1,024
        head      64
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row needs one cell per column ({len(header)}); received {len(row)}: {list(row)!r}")
    header, *rows = [[visible(cell) for cell in row] for row in (header, *rows)]
    heads = [[name.rpartition(" ")[0] for name in header], [name.rpartition(" ")[2] for name in header]]
    heads = heads if broken else [header]
    widths = [max(len(cell) for cell in column) for column in zip(*heads, *rows, strict=True)]
    lines = [_line(row, widths, right) for row in (*heads, *rows)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines.insert(len(heads), rule)
    if footer:
        lines.insert(len(lines) - footer, rule)
    return "\n".join(lines)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """The same table as HTML, for notebooks, from what `table` takes; what is in the cells is escaped.

    Example:
        >>> html_table(["layer", "MACs"], [["a<b", "64"]], right="lr").count("a&lt;b")
        1
    """
    sides = ["right" if side == "r" else "left" for side in right.ljust(len(header))]

    def line(cells: Sequence[str], tag: str) -> str:
        inner = "".join(
            f'<{tag} style="text-align:{side}">{escape(visible(cell))}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _line(cells: Sequence[str], widths: Sequence[int], right: str) -> str:
    sides = right.ljust(len(cells))
    aligned = [
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(cells, widths, sides, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def short(number: float, unit: str = "") -> str:
    """A number with three or four digits and a power of a thousand: ``k``, ``M``, ``G``, ``T``.

    Example:
        >>> short(888_400_000), short(1536, "B"), short(12)
        ('888.4 M', '1.536 kB', '12')
    """
    power = 0
    while abs(number) >= 999.95 and power < len(PREFIXES) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.4g} {PREFIXES[power]}{unit}".rstrip()


def kept(part: int | None, whole: int | None) -> str:
    """``"16/64"``, or just ``"64"`` where nothing is gone; empty where a number is not known."""
    if part is None or whole is None:
        return ""
    return f"{whole:,}" if part == whole else f"{part:,}/{whole:,}"


def as_plain(value: Any) -> dict[str, Any]:
    """A frozen value as plain dicts, lists and numbers, ready for JSON.

    Example:
        >>> as_plain(OneShot(sparsity=0.5, at=3))
        {'sparsity': 0.5, 'at': 3, 'measure': 1, 'finish': None}
    """
    return asdict(value, value_serializer=lambda _, __, inner: list(inner) if isinstance(inner, tuple) else inner)


def bits_list(bits: Sequence[int]) -> str:
    """Different bit widths as text, ``"4, 8"``; ``"-"`` without any."""
    return ", ".join(map(str, bits)) or "-"
