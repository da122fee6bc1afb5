"""Figures as SVG that stands inside a page, and what every figure has in common."""

import io
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from qprune.errors import QpruneError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# text stays text, which browsers can search and read aloud; names in it are no formulas, whatever signs they have
SETTINGS: Any = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "qprune"}
METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}  # the same figure is the same text


def empty_figure(rows: float, width: float = 9) -> "Figure":
    """A figure of the house's size and layout, of no window, without axes.

    Args:
        rows: how many drawings there will be, one above the other.
        width: in inches.

    Raises:
        QpruneError: if matplotlib is not installed.

    Example:
        >>> empty_figure(rows=2).get_size_inches().tolist()
        [9.0, 5.0]
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _no_matplotlib() from error
    return Figure(figsize=(width, 0.8 + 2.1 * rows), dpi=120, layout="constrained")


def inline_svg(draw: "Callable[[], Figure]", label: str, transparent: bool = True) -> str:
    """Draw a figure as an ``<svg>`` element; what is in its texts is escaped.

    Args:
        draw: makes the figure.
        label: what the figure shows, for those who do not see it.
        transparent: whether the page shows behind it.

    Raises:
        QpruneError: if matplotlib is not installed.

    Example:
        >>> inline_svg(lambda: empty_figure(rows=1), "nothing")[:52]
        '<svg role="img" aria-label="nothing" class="figure" '
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise _no_matplotlib() from error
    text = io.StringIO()
    with rc_context(SETTINGS):
        draw().savefig(text, format="svg", transparent=transparent, metadata=METADATA)
    _, start, rest = text.getvalue().partition("<svg")
    return f'{start} role="img" aria-label="{escape(label)}" class="figure"{rest}'


def notebook_svg(draw: "Callable[[], Figure]", label: str) -> str:
    """A figure for a notebook, below a table that says the same: on white; empty where it cannot be drawn.

    Example:
        >>> notebook_svg(lambda: empty_figure(rows=1), "nothing")[:4]
        '<svg'
    """
    try:
        return inline_svg(draw, label, transparent=False)
    except QpruneError:  # without matplotlib, or with nothing to draw, the table is what there is
        return ""


def calm(axes: "Axes", grid: str = "both") -> None:
    """Leave out the frame's upper and right line, and draw a faint grid."""
    axes.grid(axis=grid, alpha=0.25)  # type: ignore[arg-type]
    axes.spines[["top", "right"]].set_visible(False)


def _no_matplotlib() -> QpruneError:
    return QpruneError('Plots need matplotlib, which is not installed: pip install "qprune[plots]".')
