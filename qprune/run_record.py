"""`RunRecord`: what a finished run left in its folder, read back for tables and pages."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

from qprune.costs import read_report
from qprune.errors import CheckpointError, QpruneError
from qprune.exporting import Certificate, read_certificate
from qprune.regular_files import read_regular
from qprune.spec import Spec
from qprune.training import History, Run, load_checkpoint, runs_root, spec_in

LARGEST = 2**24  # bytes of a history or a spec


@frozen(eq=False)
class RunRecord:
    """A finished run, as its folder tells.

    Attributes:
        run: the folder.
        root: the folder of all runs, below which the run has its name.
        facts: what its ``report.json`` holds.
        spec: what it was trained by.

    Example:
        >>> record = RunRecord.open("runs/digits/a75_w4a4")
        >>> record.name, record.monitor
        ('digits/a75_w4a4', 'accuracy')
    """

    run: Run
    root: Path
    facts: dict[str, Any] = field(repr=False)
    spec: Spec = field(repr=False)

    @classmethod
    def open(cls, run: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> "RunRecord":
        """Read a run, by its folder or its name below the root of runs.

        Raises:
            CheckpointError: if there is none, it is not finished, or its report or spec cannot be read.

        Example:
            >>> RunRecord.open("runs/digits/baseline").facts["init"]
        """
        found = Run.open(run, root)
        if not found.finished:
            raise CheckpointError(
                f"{found.path} is not finished, so there is nothing to show yet. Go on with --resume."
            )
        facts = read_report(found.inside(found.report))
        return cls(found, _root_of(found, facts["name"], runs_root(root)), facts, _spec_of(found))

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.facts["name"])

    @property
    def monitor(self) -> str:
        """The metric by which its task chooses."""
        return str(self.facts["monitor"])

    @property
    def mode(self) -> str:
        """``"max"`` if more of that metric is better, else ``"min"``."""
        return str(self.facts["mode"])

    @property
    def score(self) -> float | None:
        """That metric on test images; None if it was not scored on any, or the score is no number."""
        score = self.facts["scores"].get("test", {}).get(self.monitor)
        return score if score is not None and abs(score) < float("inf") else None

    @property
    def milliseconds(self) -> float | None:
        """What one image takes in the exported file, as the newest certificate that was timed says; else None."""
        times = [each.milliseconds["exported"] for _, each in self.certificates()[0] if "exported" in each.milliseconds]
        return times[-1] if times else None

    def certificates(self) -> tuple[list[tuple[Path, Certificate]], list[str]]:
        """The certificates beside the model, oldest first, and for each that cannot be read a sentence."""
        found, notes = [], []
        for file in sorted(self.run.path.glob("*.certificate.json"), key=lambda path: path.lstat().st_mtime):
            try:
                found.append((file, read_certificate(self.run.inside(file))))
            except QpruneError as error:
                notes.append(str(error))
        return found, notes

    def history(self) -> tuple[History, list[str]]:
        """Entries and events of the training, and sentences about what of them is not at hand.

        The events, when masks froze and quantizers started, are in ``last.pt`` only; the entries in ``history.csv``,
        too.
        """
        history = History(run=self.run.path, scores=self.facts["scores"])
        try:
            # not previous.pt, which holds only a part of the training
            history.load_state_dict(load_checkpoint(self.run.inside(self.run.last))["history"])
            history.events = [event for event in history.events if _is_event(event)]
            if history.history.keys() >= {"step", "epoch"} or not history.history:
                return history, []
            raise KeyError("step")
        except (CheckpointError, KeyError, TypeError, AttributeError):
            notes = [f"{self.run.last.name} is not at hand, so when masks froze and quantizers started is not known."]
        try:
            history.history = _columns(read_regular(self.run.inside(self.run.history), LARGEST).decode())
        except (OSError, ValueError, QpruneError):
            notes.append(f"{self.run.history.name} is not at hand, so there are no losses and metrics over steps.")
        return history, notes


def find_runs(where: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders of the runs that a name stands for: a run itself, or all finished ones below a folder.

    Args:
        where: a run folder, a folder with runs below it, or either by its name below the root of runs.
        root: the root of runs.

    Raises:
        CheckpointError: if there is neither; the nearest names are told.

    Example:
        >>> [path.name for path in find_runs("runs/digits")]
        ['a75_layerwise', 'a75_w4a4', 'baseline']
    """
    for folder in (Path(where), runs_root(root) / where):
        if not Run(folder).exists:
            below = sorted(path.parent for path in folder.rglob("model.pt") if Run(path.parent).report.is_file())
            if below:
                return below
    return [Run.open(where, root).path]


def unfinished_below(where: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders below one, or below its name in the root of runs, that hold a run which is not finished."""
    places = [folder for folder in (Path(where), runs_root(root) / where) if folder.is_dir() and not Run(folder).exists]
    return sorted({path.parent for folder in places[:1] for path in _unfinished(folder)})


def _unfinished(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("spec.toml"):
        run = Run(path.parent)
        if not (run.finished and run.report.is_file()):
            yield path


def _root_of(run: Run, name: str, root: Path) -> Path:
    """Where the runs lie among which this one has its name."""
    parts, place = Path(name).parts, run.path.resolve()
    return place.parents[len(parts) - 1] if parts and place.parts[-len(parts) :] == parts else root


def _spec_of(run: Run) -> Spec:
    try:
        text = read_regular(run.inside(run.spec), LARGEST).decode()
    except (OSError, UnicodeDecodeError):
        raise CheckpointError(f"{run.spec} cannot be read. Put the run's spec there again.") from None
    found = spec_in(text, run.spec)
    if found is None:
        raise CheckpointError(f"{run.spec} is empty. Put the run's spec there again.")
    return found


def _columns(text: str) -> dict[str, list[Any]]:
    header, *rows = csv.reader(io.StringIO(text))
    cells = zip(*rows, strict=True)
    columns = {name: [float(cell) for cell in column] for name, column in zip(header, cells, strict=True)}
    if not columns.keys() >= {"step", "epoch"}:
        raise ValueError("no column of steps and epochs")
    return columns


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict) or type(event.get("step")) is not int or not isinstance(event.get("site"), str):
        return False
    refreshed = isinstance(event.get("sparsity"), float | int) and isinstance(event.get("frozen"), bool)
    return refreshed or type(event.get("bits")) is int
