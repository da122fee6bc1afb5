"""`plot_sensitivity`: one figure of what every group can spare."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprune.report.plot import NAMED, empty_figure
from qprune.search.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST = 1e-9  # of the axis: what is below is nothing, and has no logarithm


def plot_sensitivity(found: Sensitivity, path: str | Path | None = None) -> "Figure":
    """Draw divergence over ratios and over bits, one above the other; see `Sensitivity.plot`.

    The lines go from the groups that data reaches first, dark, to the last, bright. Of many groups a legend names the
    first and the last.

    Raises:
        QpruneError: if matplotlib is not installed.
    """
    kinds = [kind for kind in ("ratios", "bits") if any(getattr(curve, kind) for curve in found.curves)]
    figure = empty_figure(2 * max(1, len(kinds)))
    rows = figure.subplots(max(1, len(kinds)), squeeze=False)[:, 0]
    for axes, kind in zip(rows, kinds, strict=False):
        _draw(axes, found, kind)
    if path is not None:
        figure.savefig(path)
    return figure


def _draw(axes: "Axes", found: Sensitivity, kind: str) -> None:
    from matplotlib import colormaps

    last = len(found.curves) - 1
    for number, curve in enumerate(found.curves):
        points: dict[Any, float] = getattr(curve, kind)
        if points:
            levels = sorted(points)
            color = colormaps["viridis"](0.92 * number / max(1, last))  # the same in both drawings
            values = [max(SMALLEST, points[level]) for level in levels]
            axes.plot(levels, values, marker=".", color=color, label=_label(curve.group.title, number, last + 1))
    axes.set_yscale("log")
    axes.set_ylabel("KL divergence" if found.compare == "classes" else "mean squared difference")
    axes.set_xlabel("share of channels dropped" if kind == "ratios" else "bits of weights and values")
    if kind == "bits":
        axes.set_xticks(sorted({width for curve in found.curves for width in curve.bits}))
        axes.invert_xaxis()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02), borderaxespad=0.3)


def _label(title: str, number: int, count: int) -> str:
    if count <= NAMED:
        return title
    # a name with an underscore in front is one that legends leave out
    return {0: f"{title}\nfirst of {count}", count - 1: f"{title}\nlast of {count}"}.get(number, "_")
