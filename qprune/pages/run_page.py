"""The page of one run: what was trained, what it costs and scores, and what it makes of test images."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import Factory, define

from qprune.costs import LayerCost, report_shrunk, summarize
from qprune.errors import DataError, QpruneError
from qprune.figures import LayerBar, inline_svg, plot_confusion, plot_history, plot_layers
from qprune.pages import run_facts
from qprune.pages.rendering import as_html, render
from qprune.pages.run_facts import EXPORT, FLOAT_BITS, Table, count_of
from qprune.pages.seen import look, mistaken
from qprune.run_record import RunRecord
from qprune.shrinking import shrink_with_facts
from qprune.spec import spec_to_toml
from qprune.tables import html_table
from qprune.tasks import Task, make_task
from qprune.training import History, Opened

ONCE = "The run was validated once, at its end: see its scores."
NO_NETWORK = "Not known, since the network could not be opened."


@define
class Section:
    """A part of the page: HTML, sentences before it, and notes about what is not at hand."""

    key: str
    title: str
    told: list[str] = Factory(list)
    html: list[Any] = Factory(list)  # tables and figures, one below the other
    captions: dict[int, str] = Factory(dict)  # by the number of the figure
    more: list[tuple[str, Any]] = Factory(list)  # what opens on a click: its title, and the HTML
    lists: list[tuple[str, Sequence[str]]] = Factory(list)  # titles with lines below them
    pictures: Sequence[str] = ()  # as addresses
    legend: Sequence[tuple[str, str]] = ()  # names of classes with their colours in CSS
    notes: list[str] = Factory(list)

    def add(self, table: Table) -> None:
        """Show a table."""
        self.html.append(as_html(html_table(table.header, table.rows, right=table.right)))

    def draw(self, figure: Callable[[], Any], label: str, caption: str) -> None:
        """Show a figure with its caption."""
        self.captions[len(self.html)] = caption
        self.html.append(as_html(inline_svg(figure, label)))


def run_page(record: RunRecord, open_it: Callable[[], Opened], task: Task | None, device: torch.device) -> str:
    """The page of a run as HTML; what is not at hand is said in a sentence in its place.

    ``open_it`` opens its network, with the data to look at; a task that is given takes the place of the spec's.
    """
    sections = [_trained(record), _chain(record), _scores(record), _costs(record), _training(record)]
    try:
        opened = open_it()
    except QpruneError as error:
        network = Section("network", "The network", notes=[f"The network cannot be opened. {error}"])
        removed = Section("removed", "What could not be removed", notes=[NO_NETWORK])
        seen = Section("seen", "What it makes of test images", notes=[NO_NETWORK])
    else:
        network, removed, seen = _network(opened), _removed(opened), _seen(opened, task, device)
    sections += [network, removed, _certificates(record), seen, _where(record)]
    tiles = list(run_facts.tiles(record))
    return render("run.html", title=record.name, about=record.spec.about, tiles=tiles, sections=sections)


def _trained(record: RunRecord) -> Section:
    section = Section("trained", "What was trained")
    section.add(run_facts.training_facts(record))
    section.more = [("the whole spec", as_html("<pre>{}</pre>").format(spec_to_toml(record.spec)))]
    return section


def _chain(record: RunRecord) -> Section:
    told, table = run_facts.chain_facts(record)
    section = Section("chain", "The chain", [told])
    section.add(table)
    return section


def _scores(record: RunRecord) -> Section:
    section, table = Section("scores", "Scores"), run_facts.score_facts(record)
    if table.rows:
        section.add(table)
    else:
        section.notes = ["The run was not scored: there were no validation or test images."]
    return section


def _costs(record: RunRecord) -> Section:
    section = Section("costs", "What it costs")
    section.add(run_facts.cost_facts(record))
    if record.milliseconds is None:
        section.notes = [f"How long an image takes was not measured: {EXPORT.format(record.name)}"]
    return section


def _training(record: RunRecord) -> Section:
    history, notes = record.history()
    section = Section("training", "The training", list(run_facts.told_events(history)), notes=notes)
    if _is_drawn(history):
        section.html, section.captions = [_history_figure(history)], {0: _history_caption(history)}
    elif len(history) == 1:
        section.notes.append(ONCE)
    section.more = [_earlier(each) for each in run_facts.earlier(record)]
    return section


def _earlier(record: RunRecord) -> tuple[str, Any]:
    """The training of a run before this one, to be opened."""
    history, notes = record.history()
    parts = [as_html("<p>{}</p>").format(line) for line in (*run_facts.told_events(history), *notes)]
    if _is_drawn(history):
        parts.append(_history_figure(history))
    return f"the training of {record.name}", as_html("").join(parts)


def _is_drawn(history: History) -> bool:
    return len(history) > 1 or bool(history.events)  # one point makes no curve


def _history_figure(history: History) -> Any:
    label = "losses, metrics and sparsity over steps"
    columns = history.history if len(history) > 1 else {}
    steps = history.last().get("step", 1)
    return as_html(inline_svg(lambda: plot_history(columns, history.events, steps=steps), label))


def _history_caption(history: History) -> str:
    caption = "Solid on training batches, dashed on validation images."
    if len(history) < 2:
        caption = ONCE
    if any("sparsity" in event for event in history.events):
        caption += " Sparsity: a dot where a mask freezes, a dotted line where quantizers start."
    return caption


def _network(opened: Opened) -> Section:
    section = Section("network", "The network")
    now, dense = summarize(opened.net, opened.shape), _dense_costs(opened)
    bars = [_bar(row, dense.get(row.path, row)) for row in now.layers if row.channels_out and row.weight_bits]
    caption = "A bar for each convolution and linear layer: as high as the dense network's output channels, filled as "
    caption += "far as they are left. Below it the bits of its weights and of what it reads."
    section.draw(lambda: plot_layers(bars), "channels and bits of each layer", caption)
    section.more = [("layer by layer", as_html(now._repr_html_()))]
    if not dense:
        section.notes = ["The network was handed over and has been cut, so bars show only what it has now."]
    return section


def _dense_costs(opened: Opened) -> dict[str, LayerCost]:
    dense = opened.dense()
    return {} if dense is None else {row.path: row for row in summarize(dense, opened.shape).layers}


def _bar(row: LayerCost, dense: LayerCost) -> LayerBar:
    kept = row.channels_out_kept or 0
    channels = max(dense.channels_out or 0, kept)
    return LayerBar(row.path, channels, kept, row.weight_bits or FLOAT_BITS, row.activation_bits or FLOAT_BITS)


def _removed(opened: Opened) -> Section:
    section = Section("removed", "What could not be removed")
    example = torch.rand(1, *opened.shape, generator=torch.Generator().manual_seed(0))
    try:
        report = report_shrunk(opened.net, shrink_with_facts(opened.net, example), example)
    except QpruneError as error:
        section.notes = [f"The network cannot be made smaller. {error}"]
        return section
    section.lists = report.unremoved()
    section.told = [*([] if section.lists else ["Nothing stays that the masks drop."]), *report.facts()]
    return section


def _certificates(record: RunRecord) -> Section:
    section = Section("certificate", "The certificate")
    found, section.notes = record.certificates()
    section.html = [as_html(certificate._repr_html_()) for _, certificate in found]
    if not section.html:
        section.notes.append(f"There is none yet: {EXPORT.format(record.name)}")
    return section


def _seen(opened: Opened, task: Task | None, device: torch.device) -> Section:
    section = Section("seen", "What it makes of test images")
    if opened.spec.task.is_own and task is None:
        section.notes = ["The task is your own: hand it to qprune.report, as task, to see what it draws and counts."]
        return section
    try:
        task = task or make_task(opened.spec.task, opened.classes)
        seen = look(opened, task, device)
    except DataError as error:
        section.notes = [f"The test images are not at hand. {error}"]
        return section
    section.pictures = seen.pictures
    if seen.pictures:
        section.legend = [
            (name, f"rgb({red}, {green}, {blue})")
            for name, (red, green, blue) in zip(opened.classes, opened.palette, strict=False)  # a palette may be empty
        ]
        section.told = [f"From left to right: {', '.join(getattr(task, 'columns', ['as the task draws them']))}."]
    if seen.confusions is not None:
        counts, names = seen.confusions.tolist(), list(opened.classes)
        caption = f"Counted on {count_of(seen.images, 'test image')}; shades are shares of the true class."
        section.draw(lambda: plot_confusion(counts, names), "which classes were taken for which", caption)
        lines = mistaken(seen.confusions, names)
        section.add(Table(("true class", "taken for", "how many", "of the class"), lines, "llrr"))
    if not seen.pictures and seen.confusions is None:
        section.notes = ["The task draws and counts nothing."]
    return section


def _where(record: RunRecord) -> Section:
    section = Section("where", "Where it was trained")
    section.add(run_facts.environment_facts(record))
    return section
