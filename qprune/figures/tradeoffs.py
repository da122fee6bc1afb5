"""`plot_tradeoffs`: what runs score over what they cost, with the front marked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qprune.escaping import visible
from qprune.figures.svg import calm, empty_figure
from qprune.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRONT, BEHIND = "#d95f02", "#7570b3"
NAMED = 12  # points that have room for their names
FAR = 8.0  # costs so many times apart are drawn on a logarithmic axis
UNITS = {"packed bytes": "B", "latency": "s"}


def plot_tradeoffs(
    scores: Mapping[str, float],
    costs: Mapping[str, Mapping[str, float]],
    fronts: Mapping[str, Sequence[str]],
    metric: str,
    shares: bool = True,
) -> "Figure":
    """Draw a panel for each cost: a point for each run, those of the front joined.

    Args:
        scores: by the names of runs.
        costs: title of a cost -> name of a run -> what it costs.
        fronts: title of a cost -> the names of the runs of its front, from the cheapest.
        metric: what the scores are.
        shares: whether scores are shares of 1, which are written in per cent.

    Raises:
        QpruneError: if matplotlib is not installed.

    Example:
        >>> figure = plot_tradeoffs({"a": 0.9, "b": 0.8}, {"MACs": {"a": 5e6, "b": 7e6}}, {"MACs": ["a"]}, "accuracy")
        >>> figure.axes[0].get_xlabel()
        'MACs'
    """
    from matplotlib.ticker import PercentFormatter

    rows = -(-len(costs) // 2)
    figure = empty_figure(1.4 * max(1, rows))
    panels = figure.subplots(max(1, rows), 2, squeeze=False, sharey=True).flatten()
    for axes, (title, each) in zip(panels, costs.items(), strict=False):
        _draw(axes, title, {name: (cost, scores[name]) for name, cost in each.items()}, fronts[title])
    for axes in panels[::2]:
        axes.set_ylabel(visible(metric))
    if shares:
        panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    for axes in panels[len(costs) :]:
        axes.remove()
    return figure


def _draw(axes: "Axes", title: str, points: Mapping[str, tuple[float, float]], front: Sequence[str]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.step(*_line(points, front), where="post", color=FRONT, linewidth=1.2, alpha=0.6)
    axes.set_xlabel(title)
    costs = [cost for cost, _ in points.values() if cost > 0]
    if costs and max(costs) > FAR * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _told(value, title)))
    axes.margins(x=0.22, y=0.15)
    for name, (cost, score) in points.items():
        first = name in front
        axes.plot(cost, score, "o" if first else "x", color=FRONT if first else BEHIND, markersize=6)
        if first or len(points) <= NAMED:
            axes.annotate(visible(name), (cost, score), (4, 4), textcoords="offset points", fontsize=7)
    calm(axes)


def _line(points: Mapping[str, tuple[float, float]], front: Sequence[str]) -> tuple[list[float], list[float]]:
    return [points[name][0] for name in front], [points[name][1] for name in front]


def _told(value: float, title: str) -> str:
    return f"{1000 * value:.3g} ms" if title == "latency" else short(value, UNITS.get(title, ""))
