"""`Run`: the folder with everything that one training produced."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from qprune.errors import CheckpointError, SpecError
from qprune.spec import Table, parse_toml
from qprune.spec.files import read_table
from qprune.spec.values import shown
from qprune.spelling import similar
from qprune.training.checkpoint import DamagedError, load
from qprune.training.writing import explaining_write_errors, remove_parts, replaced

log = logging.getLogger(__name__)

FILES = ("spec.toml", "history.csv", "report.json", "last.pt", "previous.pt", "best.pt", "model.pt")
# what a resumed run may have otherwise: how it is called, where its data lies, how it is loaded, how often it is saved,
# who is told, what is kept in memory
FREE = (
    *("name", "about", "published", "aka"),
    *("data.root", "data.download", "data.workers", "data.prefetch"),
    "train.checkpoint_every",
    "train.log",
    "train.recompute",
)
SHOWN = 3  # differences in a sentence


def runs_root(runs: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all runs: ``runs`` if given, else the variable ``QPRUNE_RUNS``, else ``./runs``.

    Example:
        >>> runs_root("elsewhere").name
        'elsewhere'
    """
    return Path(runs or os.environ.get("QPRUNE_RUNS") or "runs")


class _Inside:
    """A path in a run's folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: "Run", _: type) -> Path:
        return run.path / self.name


@frozen
class Run:
    """A run's folder and the files in it.

    Attributes:
        path: the folder.
        spec: the resolved spec.
        history: a row per validation.
        report: final scores per split, costs, environment.
        tensorboard: the folder of TensorBoard's event files.
        last: the checkpoint that a training is resumed from.
        previous: the ``last.pt`` before the last one, should that be damaged.
        best: the best finished model on the validation split.
        model: the trained model, which `qprune.load` opens.

    Example:
        >>> Run(Path("runs/digits/baseline")).model.as_posix()
        'runs/digits/baseline/model.pt'
    """

    path: Path

    @classmethod
    def create(
        cls, root: str | os.PathLike[str], name: str, spec_toml: str, *, resume: bool = False, overwrite: bool = False
    ) -> "Run":
        """Make the folder ``root/name`` with its ``spec.toml``; an existing run is replaced only with ``overwrite``.

        Args:
            root: the folder of all runs.
            name: the run's name, a relative path.
            spec_toml: the resolved spec as text.
            resume: go on with a run that is there, finished or not; a run that is not there is begun.
            overwrite: delete what a run of this name left behind, and begin anew.

        Raises:
            CheckpointError: if the run is there and neither is asked for, both are, it has another spec, it is finished
                and has no checkpoint, or its folder cannot be written.

        Example:
            >>> Run.create("runs", "digits/mine", spec_to_toml(spec)).spec.is_file()
            True
        """
        run = cls(Path(root) / name)
        if resume and overwrite:
            raise CheckpointError(f"{run.path}: resume and overwrite exclude each other; give one of them.")
        if overwrite:
            with explaining_write_errors(run.path):
                run.clear()
        elif run.exists and not resume:
            raise CheckpointError(run._refusal())
        elif run.exists:
            run._check_same(f"{run.path} was begun", run._spec_there(), spec_toml)
            run._check_resumable()
        else:
            log.log(logging.INFO if resume else logging.DEBUG, "%s: nothing to resume, the run begins", run.path)
        if not run.exists:
            with explaining_write_errors(run.path):
                run.path.mkdir(parents=True, exist_ok=True)
            with replaced(run.spec) as file:
                file.write(spec_toml.encode())
        return run

    @classmethod
    def open(cls, run: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> "Run":
        """Find a run by its folder, or by its name below the root of runs.

        Raises:
            CheckpointError: if there is none; the nearest are named.

        Example:
            >>> Run.open("runs/digits/baseline") == Run.open("digits/baseline", root="runs")
            True
        """
        places = [Path(run), runs_root(root) / run]
        for path in places:
            if cls(path).exists:
                return cls(path)
        names = [path.parent.relative_to(runs_root(root)).as_posix() for path in runs_root(root).rglob("spec.toml")]
        raise CheckpointError(
            f"There is no run {run}, neither as a folder nor in {runs_root(root)}. {_runs_there(run, sorted(names))}"
        )

    spec = _Inside("spec.toml")
    history = _Inside("history.csv")
    report = _Inside("report.json")
    tensorboard = _Inside("tensorboard")
    last = _Inside("last.pt")
    previous = _Inside("previous.pt")
    best = _Inside("best.pt")
    model = _Inside("model.pt")

    @property
    def exists(self) -> bool:
        """Whether a run has left anything here."""
        return any((self.path / name).is_file() for name in FILES)

    @property
    def finished(self) -> bool:
        """Whether its training came to its end."""
        return self.model.is_file()

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.last.is_file() or self.previous.is_file()

    def clear(self) -> None:
        """Delete the files of the run; others in its folder, such as runs below it, are left alone."""
        self._delete(FILES)

    def drop_unsaved(self) -> None:
        """Delete the files of a training that was killed before its first checkpoint.

        Raises:
            CheckpointError: if that is not allowed.

        Example:
            >>> Run.open("digits/baseline").drop_unsaved()
        """
        if not self.resumable:
            log.info("%s: there is no checkpoint, the run begins anew", self.path)
            with explaining_write_errors(self.path):
                self._delete(name for name in FILES if name != self.spec.name)

    def _delete(self, names: Iterable[str]) -> None:
        # first the points: where the files of a run are gone, nobody would look for those of the one before
        if self.tensorboard.is_symlink():
            self.tensorboard.unlink()
        else:
            shutil.rmtree(self.tensorboard, ignore_errors=True)
        for name in names:
            remove_parts(self.path / name)
            (self.path / name).unlink(missing_ok=True)

    def inside(self, file: Path) -> Path:
        """One of the run's files, which is not a link to anywhere else.

        Args:
            file: the file; it need not exist.

        Raises:
            CheckpointError: if it leads out of the run's folder.

        Example:
            >>> Run(Path("runs/digits/baseline")).inside(Path("runs/digits/baseline/model.pt")).name
            'model.pt'
        """
        real = Path(os.path.realpath(file))
        if not real.is_relative_to(os.path.realpath(self.path)):
            raise CheckpointError(
                f"{file} leads out of the run's folder, to {real}, and is not followed. Put the file itself there."
            )
        return file

    def read_last(self, spec_toml: str = "") -> dict[str, Any]:
        """The checkpoint to resume from: ``last.pt`` or, if that is missing or damaged, ``previous.pt``.

        Args:
            spec_toml: the resolved spec as text, with which it must have been written; not compared if empty.

        Raises:
            CheckpointError: if neither can be used, ``last.pt`` is no file of this version of qprune, or it was written
                with another spec.

        Example:
            >>> Run.open("digits/baseline").read_last()["step"] > 0
            True
        """
        file = self.last
        try:
            content = self._training(file)
        except DamagedError as error:
            file, content = self.previous, self._training_before(error)
            log.warning(
                "%s is not used: %s. Going on from %s, step %s.",
                *(self.last, error.reason, self.previous.name, content["step"]),
            )
        if spec_toml:
            self._check_same(f"{file} was written", _table_in(content, file), spec_toml)
        return content

    def _training_before(self, last: DamagedError) -> dict[str, Any]:
        try:
            return self._training(self.previous)
        except DamagedError as error:
            raise CheckpointError(
                f"{self.path} has no checkpoint to go on from: of {self.last.name}, {last.reason}; of "
                f"{self.previous.name}, {error.reason}. Begin anew with --overwrite, or under a new --name."
            ) from last

    def _training(self, file: Path) -> dict[str, Any]:
        content = load(self.inside(file))
        if not isinstance(content.get("net"), dict) or type(content.get("step")) is not int:
            raise DamagedError(f"{file} holds no training to go on from.", "it holds no training")
        return content

    def _refusal(self) -> str:
        if self.finished:
            return (
                f"{self.path} holds a finished run. Use --resume to score it again, --overwrite to train it anew, "
                "or a new --name."
            )
        return (
            f"{self.path} holds a run that was not finished. Use --resume to go on, --overwrite to begin anew, "
            "or a new --name."
        )

    def _check_resumable(self) -> None:
        if self.finished and not self.resumable:
            raise CheckpointError(
                f"{self.path} holds a finished run, but no {self.last.name} to go on from. Use --overwrite to train it "
                "anew, or a new --name."
            )

    def _check_same(self, what: str, there: Table, spec_toml: str) -> None:
        """Refuse to resume with another spec; keys in `FREE` may differ."""
        before, now = dict(_flat(there)), dict(_flat(parse_toml(spec_toml)))
        changed = [key for key in before | now if before.get(key) != now.get(key)]
        if changed:
            told = [f"{key} was {_shown(before, key)} and is {_shown(now, key)} now" for key in changed]
            more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
            raise CheckpointError(
                f"{what} with another spec: {'; '.join(told[:SHOWN])}{more}. Resume it with the spec it was begun with "
                f"({self.spec}), or use --overwrite or a new --name."
            )

    def _spec_there(self) -> Table:
        if not self.spec.is_file():
            return {}
        try:
            return read_table(self.inside(self.spec))
        except SpecError as error:
            reason = str(error).split("; ")[0].rstrip(".")  # the rest is about finding other specs
            raise CheckpointError(
                f"{reason}. Put the run's spec there again, or begin anew with --overwrite."
            ) from error


def _runs_there(run: object, names: Sequence[str]) -> str:
    """End a sentence of a run that is missing with those that are meant, or could be."""
    near = similar(run, names)
    if near:
        return f"Nearest: {', '.join(near)}."
    if not names:
        return "No run is there: qprune fit SPEC makes one."
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"There are: {', '.join(names[:3])}{more}."


def _table_in(content: Table, file: Path) -> Table:
    text = content.get("spec")
    try:
        table = parse_toml(text) if isinstance(text, str) else {}
    except ValueError:
        table = {}
    if not table:
        raise CheckpointError(
            f"{file} does not tell with which spec it was written. Begin anew with --overwrite, or under a new --name."
        )
    return table


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a spec by their keys, such as ``prune.0.sparsity``, without those in `FREE`."""
    if key in FREE:
        return
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield key, value
        return
    for name, inner in value.items():
        yield from _flat(inner, f"{key}.{name}" if key else str(name))


def _shown(values: Table, key: str) -> str:
    return shown(values[key]) if key in values else "not set"
