"""`plot_history`: one figure of a training, over its steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprune.errors import QpruneError
from qprune.figures.svg import calm, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLOCK = ("step", "epoch", "seconds", "lr")
DETAILS = "iou_"  # one number per class: too many curves
NAMED = 12  # sites that a legend can name; of more, the first and the last are
TRAINED, HELD_OUT, QUANTIZERS = "-", "--", "C3"

Columns = Mapping[str, Sequence[Any]]
Events = Sequence[Mapping[str, Any]]


def plot_history(columns: Columns, events: Events, path: str | Path | None = None, steps: int = 1) -> "Figure":
    """Draw losses, metrics, learning rate and the sparsity time line, one above the other, over steps.

    Training curves are solid, those of the validation split dashed. A site's curve is strong from its first refresh to
    the dot at which its mask freezes; dotted lines mark where quantizers start, and the last row counts them.

    Args:
        columns: name -> one value per validation, as in `History.history`.
        events: what the driver did, as in `History.events`.
        path: where to save the figure as well; its suffix is the format.
        steps: how far the steps go at least.

    Returns:
        the figure; it belongs to no window and to no pyplot state.

    Raises:
        QpruneError: if there is nothing to draw, or matplotlib is not installed.
    """
    if not columns and not events:
        raise QpruneError("The history is empty: there is nothing to plot before the first validation. Train first.")
    drawings = _drawings(columns, events)
    figure = empty_figure(len(drawings))
    rows = list(figure.subplots(len(drawings), sharex=True, squeeze=False)[:, 0])
    end = max([*columns.get("step", ()), *(event["step"] for event in events), steps])
    for axes, draw in zip(rows, drawings, strict=True):
        draw(axes, columns, events, end)
        calm(axes)
    _label_steps(rows, columns, end)
    if path is not None:
        figure.savefig(path)
    return figure


def _drawings(columns: Columns, events: Events) -> list[Any]:
    drawings: list[Any] = []
    if columns:
        drawings = [_draw_losses, _draw_metrics] if _metrics(columns) else [_draw_losses]
        drawings += [_draw_rate] if "lr" in columns else []
    drawings += [_draw_sites] if any("sparsity" in event for event in events) else []
    drawings += [_draw_quantizers] if any("bits" in event for event in events) else []
    return drawings


def _metrics(columns: Columns) -> list[str]:
    bases = dict.fromkeys(name.removeprefix("val_") for name in columns)
    return [name for name in bases if name not in (*CLOCK, "loss") and not name.startswith(DETAILS)]


def _draw_losses(axes: "Axes", columns: Columns, events: Events, end: int) -> None:
    _draw_pair(axes, columns, "loss", "C0")
    axes.set_ylabel("loss")
    _legend(axes)


def _draw_metrics(axes: "Axes", columns: Columns, events: Events, end: int) -> None:
    names = _metrics(columns)
    for number, name in enumerate(names):
        _draw_pair(axes, columns, name, f"C{number + 1}")
    axes.set_ylabel(names[0] if len(names) == 1 else "metrics")
    _legend(axes)


def _draw_pair(axes: "Axes", columns: Columns, name: str, color: str) -> None:
    marker = "." if len(columns["step"]) < 40 else ""
    for key, style in ((name, TRAINED), (f"val_{name}", HELD_OUT)):
        if key in columns:
            axes.plot(columns["step"], columns[key], style, color=color, marker=marker, label=key)


def _draw_rate(axes: "Axes", columns: Columns, events: Events, end: int) -> None:
    axes.plot(columns["step"], columns["lr"], color="0.35", marker="." if len(columns["step"]) < 40 else "")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)


def _draw_sites(axes: "Axes", columns: Columns, events: Events, end: int) -> None:
    curves = _curves(events)
    for number, (site, curve) in enumerate(curves.items()):
        _draw_site(axes, site, curve, number, len(curves), end)
    for step in {event["step"] for event in events if "bits" in event}:
        axes.axvline(step, color=QUANTIZERS, linestyle=":", linewidth=1.2)
    highest = max(sparsity for curve in curves.values() for _, sparsity, _ in curve)
    axes.set_ylim(-0.04 * highest, 1.1 * highest or 1.0)
    axes.set_ylabel("sparsity")
    _legend(axes)


def _curves(events: Events) -> dict[str, list[tuple[int, float, bool]]]:
    """For every site its refreshes: step, sparsity, and whether the mask froze."""
    curves: dict[str, list[tuple[int, float, bool]]] = {}
    for event in events:
        if "sparsity" in event:
            curves.setdefault(event["site"], []).append((event["step"], event["sparsity"], event["frozen"]))
    return curves


def _draw_site(
    axes: "Axes", site: str, curve: list[tuple[int, float, bool]], number: int, sites: int, end: int
) -> None:
    from matplotlib import colormaps

    color = colormaps["viridis"](0.92 * number / max(1, sites - 1))
    steps, sparsities, frozen = map(list, zip(*curve, strict=True))
    # sites have the same sparsity most of the time: faint while nothing happens, so that none hides another
    axes.step([0, *steps, end], [0.0, *sparsities, sparsities[-1]], where="post", color=color, alpha=0.3, linewidth=1)
    axes.step(
        [steps[0], *steps],
        [0.0, *sparsities],
        where="post",
        color=color,
        linewidth=2,
        label=_label(site, number, sites),
    )
    if frozen[-1]:
        axes.plot(steps[-1], sparsities[-1], "o", color=color, markersize=5)


def _label(site: str, number: int, sites: int) -> str | None:
    if sites <= NAMED:
        return site
    return {0: f"{site}\nfirst of {sites}", sites - 1: f"{site}\nlast of {sites}"}.get(number)


def _draw_quantizers(axes: "Axes", columns: Columns, events: Events, end: int) -> None:
    starts = [(event["step"], event["bits"]) for event in events if "bits" in event]
    for number, bits in enumerate(sorted({bits for _, bits in starts})):
        steps = sorted(step for step, width in starts if width == bits)
        counts = range(len(steps) + 1)
        style = (TRAINED, HELD_OUT, "-.", ":")[number % 4]
        axes.step([0, *steps, end], [*counts, len(steps)], style, where="post", color=QUANTIZERS, label=f"{bits} bit")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("quantizers")
    _legend(axes)


def _legend(axes: "Axes") -> None:
    _, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02), borderaxespad=0.3)


def _label_steps(rows: Sequence["Axes"], columns: Columns, end: int) -> None:
    rows[-1].set_xlabel("step")
    rows[-1].set_xlim(0, end * 1.01)
    if columns.get("epoch"):
        length = columns["step"][-1] / columns["epoch"][-1]
        top = rows[0].secondary_xaxis("top", functions=(lambda step: step / length, lambda epoch: epoch * length))
        top.set_xlabel("epoch")
