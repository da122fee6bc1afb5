"""`Sensitivity`: how much of every group of channels a network can spare, as a table, a picture and plain data."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from qprune.budget.groups import Group
from qprune.escaping import visible
from qprune.figures import notebook_svg
from qprune.tables import as_plain, html_table, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 80  # of a table
COLUMNS = 6  # of one; a finer grid is in the picture and in the data
TITLE = 24  # characters of a group's title


@frozen
class Curve:
    """What was measured of one group."""

    group: Group
    # share of the channels dropped -> divergence; empty where none can be
    ratios: dict[float, float] = field(factory=dict)
    bits: dict[int, float] = field(factory=dict)  # bits of weights and values -> divergence
    problem: str = ""  # why it cannot be pruned, although it has members


@frozen
class Sensitivity:
    """The divergence of a network's outputs from the dense ones, for every group pruned or quantized alone.

    It prints as a table of 80 columns.

    Attributes:
        curves: one for each group, in the order in which data reaches them.
        compare: what was compared: ``"classes"``, a KL divergence in nats, or ``"values"``, a mean squared difference.
        images: on how many images.
        importance: how the channels of a group were ranked.
        measured: how many settings were measured for this; the others had been before, and were read from a file.

    Example:
        >>> curve = Curve(Group("act.output", ("act",), ("conv",), 16), {0.5: 0.25, 0.75: 1.5}, {8: 0.00002})
        >>> print(Sensitivity((curve,), compare="classes", images=256, importance="activation-l1", measured=3))
        KL divergence of the classes from those of the dense network, in nats.
        Each group changed alone, the statistics of normalizations taken anew.
        256 images; channels ranked by activation-l1.
        <BLANKLINE>
        channels dropped  of    50 %    75 %
        ------------------------------------
        act.output        16  0.2500  1.5000
        <BLANKLINE>
        bits of weights and values      8
        ---------------------------------
        act.output                  2e-05
    """

    curves: tuple[Curve, ...]
    compare: str
    images: int
    importance: str
    measured: int

    def __str__(self) -> str:
        tables = [table(header, rows, right=_right(header)) for header, rows in self._tables()]
        blocks = [f"{_WHAT[self.compare]}.\n{_ALONE}\n{self._how()}", *tables]
        return "\n\n".join([*blocks, *self._problems()])

    def __repr__(self) -> str:
        return f"Sensitivity({groups_of(len(self.curves))}, {self.images} images)"

    def _repr_html_(self) -> str:
        told = [f"{_WHAT[self.compare]}.", _ALONE, self._how()]
        tables = [html_table(header, rows, right=_right(header)) for header, rows in self._tables()]
        paragraphs = [f"<p>{escape(visible(line))}</p>" for line in (*told, *self._problems())]
        figure = notebook_svg(self.plot, "divergence over ratios and bits")
        return "".join([*paragraphs[: len(told)], *tables, *paragraphs[len(told) :], figure])

    def _how(self) -> str:
        return f"{self.images} images; channels ranked by {self.importance}."

    def _problems(self) -> list[str]:
        return [f"{curve.group.title} is not pruned: {curve.problem}" for curve in self.curves if curve.problem]

    def _tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Header and lines of the table of ratios and of that of bits, as far as they were measured."""
        tables = []
        if ratios := _columns([curve.ratios for curve in self.curves]):
            rows = [
                [
                    cut_title(curve.group.title),
                    str(curve.group.channels),
                    *(few_digits(curve.ratios[r]) for r in ratios),
                ]
                for curve in self.curves
                if curve.ratios
            ]
            tables.append((["channels dropped", "of", *(f"{100 * ratio:.3g} %" for ratio in ratios)], rows))
        if bits := _columns([curve.bits for curve in self.curves]):
            rows = [
                [cut_title(curve.group.title), *(few_digits(curve.bits[b]) for b in bits)]
                for curve in self.curves
                if curve.bits
            ]
            tables.append((["bits of weights and values", *map(str, bits)], rows))
        return tables

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for JSON.

        Example:
            >>> Sensitivity((), "classes", 256, "activation-l1", 0).to_dict()["images"]
            256
        """
        return {
            "compare": self.compare,
            "images": self.images,
            "importance": self.importance,
            "groups": [_plain(curve) for curve in self.curves],
        }

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw divergence over ratios and over bits, a line for each group, on a logarithmic scale.

        Args:
            path: where to save the figure as well; its suffix is the format.

        Returns:
            the figure; it belongs to no window and to no pyplot state.

        Raises:
            QpruneError: if matplotlib is not installed.
        """
        from qprune.budget.plot import plot_sensitivity

        return plot_sensitivity(self, path)


_WHAT = {
    "classes": "KL divergence of the classes from those of the dense network, in nats",
    "values": "Mean squared difference from the outputs of the dense network",
}
_ALONE = "Each group changed alone, the statistics of normalizations taken anew."


def _columns(curves: Sequence[dict[Any, float]]) -> list[Any]:
    """At most `COLUMNS` of the levels that all curves have, evenly spread, with the first and the last."""
    levels = sorted({level for curve in curves for level in curve})
    most = min(COLUMNS, len(levels))
    return [levels[round(i * (len(levels) - 1) / max(1, most - 1))] for i in range(most)]


def cut_title(title: str) -> str:
    """A title of at most `TITLE` characters: first words are cut to a letter and their number, from the left."""
    parts = title.split(".")
    for index in range(len(parts) - 2):
        if len(".".join(parts)) > TITLE:
            parts[index] = re.sub(r"(?<=^\w)\D*", "", parts[index])
    short = ".".join(parts)
    return short if len(short) <= TITLE else f"{short[: TITLE - 12]}…{short[-11:]}"


def few_digits(value: float) -> str:
    """A number in at most six characters."""
    if value and not 1e-4 <= value < 1e4:
        return f"{value:.0e}"
    return f"{value:.4f}"[:6].rstrip(".") if value else "0"


def _plain(curve: Curve) -> dict[str, Any]:
    plain = as_plain(curve.group)
    plain["ratios"] = [[ratio, value] for ratio, value in sorted(curve.ratios.items())]
    plain["bits"] = [[width, value] for width, value in sorted(curve.bits.items())]
    return plain | ({"problem": curve.problem} if curve.problem else {})


def groups_of(count: int) -> str:
    """So many groups, in words."""
    return f"{count} {'group' if count == 1 else 'groups'} of channels"


def _right(header: Sequence[str]) -> str:
    return "l" + "r" * (len(header) - 1)
