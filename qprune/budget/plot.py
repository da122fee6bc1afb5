"""One figure of what every group can spare, and one of what a search left of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprune.budget.found import Found
from qprune.budget.sensitivity import Sensitivity, cut_title
from qprune.figures import empty_figure
from qprune.figures.history import NAMED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST = 1e-9  # of the axis: what is below is nothing, and has no logarithm


def plot_sensitivity(found: Sensitivity, path: str | Path | None = None) -> "Figure":
    """Draw divergence over ratios and over bits, one above the other; see `Sensitivity.plot`.

    The lines go from the groups that data reaches first, dark, to the last, bright. Of many groups a legend names the
    first and the last.
    """
    kinds = [kind for kind in ("ratios", "bits") if any(getattr(curve, kind) for curve in found.curves)]
    figure = empty_figure(2 * max(1, len(kinds)))
    rows = figure.subplots(max(1, len(kinds)), squeeze=False)[:, 0]
    for axes, kind in zip(rows, kinds, strict=False):
        _draw(axes, found, kind)
    if path is not None:
        figure.savefig(path)
    return figure


def plot_found(found: Found, path: str | Path | None = None) -> "Figure":
    """Draw what is kept of each group, and its bits; see `Found.plot`."""
    groups = list(found.choices.items())[::-1]
    figure = empty_figure(max(2, 1 + len(groups) // 5))
    axes = figure.subplots()
    kept = [1 - choice.dropped / group.channels for group, choice in groups]
    bars = axes.barh(range(len(groups)), kept, color="#4477aa", height=0.8)
    axes.barh(range(len(groups)), [1 - share for share in kept], left=kept, color="#dddddd", height=0.8)
    bits = ["" if choice.bits is None else f", {choice.bits} bits" for _, choice in groups]
    counts = [f"{group.channels - choice.dropped} of {group.channels}" for group, choice in groups]
    axes.set_yticks(range(len(groups)), [cut_title(group.title) for group, _ in groups], fontsize=8)
    for bar, count, width in zip(bars, counts, bits, strict=True):
        axes.text(1.01, bar.get_y() + bar.get_height() / 2, count + width, va="center", fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.set_xlabel("share of channels kept")
    axes.spines[["top", "right", "left"]].set_visible(False)
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
    axes.yaxis.set_major_formatter("{x:g}")  # its own writes formulas, which figures in pages do not have
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
