"""`plot_confusion`: which classes a network takes for which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qprune.escaping import visible
from qprune.figures.svg import empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED, COUNTED = 40, 20  # classes that have room for their names, and for numbers
LONG = 10_000  # a count that has no room
WIDEST = 24  # characters of a name


def plot_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> "Figure":
    """Draw a table: a row for each true class, a column for each that the network tells, shaded by the row's shares.

    In it stand the counts, or where these are too long, the shares of the row in per cent.

    Raises:
        QpruneError: if matplotlib is not installed.

    Example:
        >>> plot_confusion([[9, 1], [0, 10]], ["cat", "dog"]).axes[0].get_ylabel()
        'true class'
    """
    many = len(classes)
    figure = empty_figure(min(3.0, 1.1 + 0.16 * many), width=min(7.0, 3 + 0.36 * many))
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [_short(name) for name in classes]
    step = max(1, -(-many // NAMED))
    axes.set_xticks(range(0, many, step), names[::step], rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
    axes.set_yticks(range(0, many, step), names[::step], fontsize=8)
    axes.set_xlabel("told by the network")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if many <= COUNTED:
        _write(axes, counts, shares)
    return figure


def _write(axes: "Axes", counts: Sequence[Sequence[int]], shares: Sequence[Sequence[float]]) -> None:
    long = max(map(max, counts)) >= LONG
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            share = shares[row][column]
            text = f"{100 * share:.{0 if share >= 0.1 else 1}f} %" if long else str(count)
            if count and (share >= 0.0005 or not long):
                colour = "white" if share > 0.5 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=7 if long else 8, color=colour)


def _short(name: str) -> str:
    shown = visible(name)
    return shown if len(shown) <= WIDEST else f"{shown[: WIDEST - 1]}…"
