"""`compare`: finished runs side by side, what each scores over what it costs."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from posixpath import commonpath
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from qprune.errors import QpruneError
from qprune.figures import inline_svg, notebook_svg, plot_tradeoffs
from qprune.pages import comparison_page, write_page
from qprune.readable import SHARES, score_text
from qprune.run_record import RunRecord, find_runs, unfinished_below
from qprune.spelling import nearest
from qprune.tables import as_plain, html_table, short, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# what a run can cost, by the words of budgets: the title and the unit
TITLES = {
    "params": "parameters",
    "macs": "MACs",
    "bops": "bit operations",
    "bytes": "packed bytes",
    "latency": "latency",
}
DRAWN = ("bytes", "macs", "bops", "latency")
UNITS = {"bytes": "B"}
_SEED = re.compile(r"@seed\d+$")
WIDTH, NARROWEST = 80, 12  # of a printed table, and of its column of names


@frozen
class ComparedRun:
    """A run in a comparison."""

    name: str
    score: float | None  # its metric on test images; None if it was not scored on any
    params: int  # parameters that its masks keep
    macs: int | None  # between kept channels for one image; None in reports of earlier versions
    bops: int | None  # these times the bits of weights and of what layers read, likewise
    bytes: int  # kept weights at their bits, other parameters and scales in float32
    latency: float | None = None  # seconds that one image takes in the exported file, by its certificate


@frozen(repr=False)
class Comparison:
    """Runs of one task side by side; prints as a table of 80 columns where the names allow it.

    A run is on the *front* of a cost if no other run scores as well or better for less, or better for the same.

    Attributes:
        rows: the runs, in the order asked for.
        metric: what the scores are, on test images.
        mode: ``"max"`` if more of it is better, else ``"min"``.
        notes: sentences about what was left out.

    Example:
        >>> dense = ComparedRun("net/dense", 0.9, 800, 5000, 80_000, 3200)
        >>> pruned = ComparedRun("net/a75", 0.8, 90, 600, 900, 45)
        >>> [run.name for run in Comparison((dense, pruned), "accuracy", "max").front("bytes")]
        ['net/a75', 'net/dense']
    """

    rows: tuple[ComparedRun, ...]
    metric: str
    mode: str
    notes: tuple[str, ...] = ()

    def front(self, cost: str) -> tuple[ComparedRun, ...]:
        """The runs that no other one beats at this cost, the cheapest first.

        Args:
            cost: ``"bytes"``, ``"macs"``, ``"bops"``, ``"params"`` or ``"latency"``.

        Raises:
            QpruneError: for another word.
        """
        _check_word(cost, TITLES)
        known = [run for run in self.rows if getattr(run, cost) is not None and run.score is not None]
        best: list[ComparedRun] = []
        for run in sorted(known, key=lambda run: (getattr(run, cost), self._loss(run))):
            if not best or self._loss(run) < self._loss(best[-1]):
                best.append(run)
        return tuple(best)

    def sorted_by(self, key: str) -> "Comparison":
        """The same runs in another order: the best score first, or the smallest cost.

        Args:
            key: ``"score"`` or the metric, ``"name"``, or a cost as for `front`. Runs without it come last.

        Raises:
            QpruneError: for another word.
        """
        _check_word(key, ("name", "score", self.metric, *TITLES))
        if key == "name":
            return evolve(self, rows=tuple(sorted(self.rows, key=lambda run: run.name)))
        values = {
            run.name: self._loss(run) if key in ("score", self.metric) else getattr(run, key) for run in self.rows
        }
        rows = sorted(self.rows, key=lambda run: (values[run.name] is None, values[run.name] or 0.0))
        return evolve(self, rows=tuple(rows))

    def _loss(self, run: ComparedRun) -> Any:
        """Less is better; None without a score."""
        return None if run.score is None else run.score if self.mode == "min" else -run.score

    def over_seeds(self) -> list[str]:
        """For each run with several seeds, ``name`` and ``name@seed1``, a sentence with the mean and the extremes."""
        groups: dict[str, list[float]] = {}
        for name, run in zip(self._short_names(), self.rows, strict=True):
            if run.score is not None:
                groups.setdefault(_SEED.sub("", name), []).append(run.score)
        return [
            f"{name}: {self._told(fmean(scores))} over {len(scores)} seeds, "
            f"from {self._told(min(scores))} to {self._told(max(scores))}"
            for name, scores in groups.items()
            if len(scores) > 1
        ]

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw the metric over bytes, MACs, bit operations and, where it is known, latency; fronts are joined.

        Args:
            path: where to save the figure as well; its suffix is the format.

        Raises:
            QpruneError: if no run has a score, or matplotlib is not installed.

        Example:
            >>> comparison.plot("runs/tradeoffs.png")
        """
        names = dict(zip((run.name for run in self.rows), self._short_names(), strict=True))
        scored = [run for run in self.rows if run.score is not None]
        if not scored:
            raise QpruneError("None of these runs has a score on test images, so there is nothing to plot.")
        costs = {
            TITLES[cost]: {names[run.name]: getattr(run, cost) for run in scored if getattr(run, cost) is not None}
            for cost in DRAWN
        }
        fronts = {TITLES[cost]: [names[run.name] for run in self.front(cost)] for cost in DRAWN}
        scores = {names[run.name]: float(run.score or 0.0) for run in scored}
        drawn = {title: each for title, each in costs.items() if len(each) > 1 or len(scored) == 1}
        figure = plot_tradeoffs(scores, drawn, fronts, self.metric, shares=self.metric in SHARES)
        if path is not None:
            figure.savefig(path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain dicts, lists and numbers, ready for JSON."""
        return as_plain(self)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and lines of the table; a star marks where a run is on the front."""
        costs = [cost for cost in TITLES if any(getattr(run, cost) is not None for run in self.rows)]
        stars = {cost: {run.name for run in self.front(cost)} for cost in costs if cost != "params"}
        header = ["run", self.metric, *(_HEADS[cost] for cost in costs)]
        rows = [
            [
                name,
                "-" if run.score is None else score_text(self.metric, run.score),
                *(_told(run, cost, stars) for cost in costs),
            ]
            for name, run in zip(self._short_names(), self.rows, strict=True)
        ]
        return header, rows

    def _told(self, score: float | None) -> str:
        return "-" if score is None else score_text(self.metric, score)

    def _folder(self) -> str:
        """The folder that all names have in front; empty if there is none."""
        above = {run.name.rpartition("/")[0] for run in self.rows}
        return "" if "" in above or not above else commonpath(above)

    def _short_names(self) -> list[str]:
        """The names without that folder, each of its own."""
        return [run.name.removeprefix(f"{self._folder()}/") for run in self.rows]

    def __str__(self) -> str:
        header, rows = self.cells()
        others = sum(2 + max(map(len, column)) for column in list(zip(header, *rows, strict=True))[1:])
        most = max(NARROWEST, WIDTH - others)
        rows = [[name if len(name) <= most else f"…{name[1 - most :]}", *rest] for name, *rest in rows]
        lines = [self._heading(), table(header, rows, right=_right(header)), _STAR]
        return "\n".join([*lines, *(fill(note, WIDTH) for note in (*self.over_seeds(), *self.notes))])

    def to_html(self, path: str | Path) -> Path:
        """Write the table and the figure as one HTML file; one that is there is replaced.

        Args:
            path: the file.

        Raises:
            QpruneError: if jinja2 or matplotlib is not installed, or the file cannot be written.

        Example:
            >>> comparison.to_html("runs/comparison.html")
            PosixPath('runs/comparison.html')
        """
        header, rows = self.cells()
        scored = any(run.score is not None for run in self.rows)
        plot = inline_svg(self.plot, "trade-offs") if scored else ""
        shown = html_table(header, rows, right=_right(header))
        return write_page(
            Path(path), comparison_page(self._heading(), shown, plot, [_STAR, *self.over_seeds(), *self.notes])
        )

    def _heading(self) -> str:
        where = f" of {self._folder()}" if self._folder() else ""
        return f"{len(self.rows)} {'run' if len(self.rows) == 1 else 'runs'}{where}, {self.metric} on test images"

    def __repr__(self) -> str:
        return f"Comparison({self._heading()})"

    def _repr_html_(self) -> str:
        header, rows = self.cells()
        notes = "".join(f"<p>{escape(note)}</p>" for note in (_STAR, *self.over_seeds(), *self.notes))
        shown = f"<p>{escape(self._heading())}</p>{html_table(header, rows, right=_right(header))}{notes}"
        return shown + notebook_svg(self.plot, "trade-offs")


def _right(header: Sequence[str]) -> str:
    return "l" + "r" * (len(header) - 1)


_HEADS = {"params": "params", "macs": "MACs", "bops": "bit ops", "bytes": "packed", "latency": "latency"}
_STAR = "* on the front: no other run is as good for less"


def compare(*which: str | Path, sort: str | None = None, runs: str | Path | None = None) -> Comparison:
    """Put finished runs side by side: what each scores on test images, and what it costs.

    Args:
        *which: run folders, their names below the runs' root, or folders of runs.
        sort: ``"score"``, ``"name"``, or a cost: ``"bytes"``, ``"macs"``, ``"bops"``, ``"params"``, ``"latency"``; by
            default they stay in the order given.
        runs: where run folders lie.

    Returns:
        the comparison: prints as a table, ``.rows``, ``.front("bytes")``, ``.plot(path)``.

    Raises:
        CheckpointError: if a run is missing, not finished, or its report is damaged.
        QpruneError: if the runs are of different tasks or data, or scored by different metrics.

    Example:
        >>> print(qprune.compare("runs/digits", sort="bytes"))
    """
    if not which:
        raise QpruneError("There is nothing to compare: name runs, or a folder of runs.")
    folders = list(dict.fromkeys(folder.resolve() for each in which for folder in find_runs(each, runs)))
    records = [RunRecord.open(folder, runs) for folder in folders]
    _check_alike(records)
    unfinished = [folder.name for each in which for folder in unfinished_below(each, runs)]
    notes = (f"Left out, since not finished: {', '.join(unfinished)}",) if unfinished else ()
    rows = tuple(_row(record, name) for record, name in zip(records, _names(records), strict=True))
    found = Comparison(rows, records[0].monitor, records[0].mode, notes)
    return found if sort is None else found.sorted_by(sort)


def _names(records: Sequence[RunRecord]) -> Iterator[str]:
    """The names of runs; those of the same name in several folders are called by their folders."""
    names = [record.name for record in records]
    for record in records:
        yield record.name if names.count(record.name) == 1 else record.run.path.as_posix()


def _row(record: RunRecord, name: str) -> ComparedRun:
    costs, milliseconds = record.facts["costs"], record.milliseconds
    latency = None if milliseconds is None else milliseconds / 1000
    kept, macs, bops = costs["parameters_kept"], costs.get("macs_kept"), costs.get("bit_operations")
    return ComparedRun(name, record.score, kept, macs, bops, costs["packed_bytes"], latency)


def _check_alike(records: Sequence[RunRecord]) -> None:
    first = records[0]
    other = next((record for record in records if _kind(record) != _kind(first)), None)
    if other is not None:
        one, another = (f"{record.name} is {_told_kind(_kind(record))}" for record in (first, other))
        raise QpruneError(
            f"Only runs of one task, data and metric can be compared: {one}, {another}. Name runs of one kind."
        )


def _kind(record: RunRecord) -> tuple[str, str, str]:
    return record.spec.task.name, record.spec.data.name, f"{record.monitor} ({record.mode})"


def _told_kind(kind: tuple[str, str, str]) -> str:
    task, data, metric = kind
    return f"{task} of {data or 'data of its own'}, scored by {metric}"


def _told(run: ComparedRun, cost: str, stars: dict[str, set[str]]) -> str:
    value = getattr(run, cost)
    if value is None:
        return "-"
    text = f"{1000 * value:.4g} ms" if cost == "latency" else short(value, UNITS.get(cost, ""))
    return f"{text}{'*' if run.name in stars.get(cost, ()) else ' ' if cost in stars else ''}"


def _check_word(word: str, known: Iterable[str]) -> None:
    known = tuple(dict.fromkeys(known))
    if word not in known:
        raise QpruneError(f'There is no "{word}"{nearest(word, known)}; runs are sorted by {", ".join(known)}.')
