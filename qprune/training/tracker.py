"""`Tracker`: tells an experiment tracker of a training; base class of those that are named in ``train.log``."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar

from qprune.training.callbacks import Callback, Logs

log = logging.getLogger(__name__)

CLOCK = ("step", "epoch", "seconds")
Point = tuple[str, float, int]  # tag, number, step


class Tracker(Callback, ABC):
    """Hands the history on: parameters once, numbers and events at each validation, files at the end.

    The history is what is told, so nothing is lost where a tracker cannot be reached: a warning says so, once, training
    goes on, and what is missing follows with the next validation. A checkpoint holds which run of the tracker it is,
    and what that was told by then; a resumed training goes on with the same run.

    Args:
        name: of the run.
        parameters: the values of its spec, by their keys.
    """

    title: ClassVar[str]  # as its people write it
    package: ClassVar[str]  # that is imported, and the name of the extra

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name, self.parameters = name, dict(parameters)
        self.id = ""  # of its run there
        self.entries = self.events = 0  # of the history, that were told
        self._last = -1  # the step that was told last, as far as the tracker knows
        self._begun = self._warned = False

    @abstractmethod
    def begin(self) -> int:
        """Open the run ``id``, or a new one, and set ``id``; give the last step that it knows, -1 if none."""

    @abstractmethod
    def send(self, points: Sequence[Point]) -> None:
        """Add numbers."""

    @abstractmethod
    def send_files(self, files: Sequence[Path]) -> None:
        """Add files."""

    @abstractmethod
    def end(self, outcome: str) -> None:
        """Close the run, which is ``"finished"``, ``"interrupted"`` or ``"failed"``."""

    def on_train_begin(self, logs: Logs) -> None:
        """Open the run."""
        self._tell()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Tell the entry, and what happened since the one before."""
        self._tell()

    def on_train_end(self, logs: Logs) -> None:
        """Tell what happened since the last validation, before the last checkpoint."""
        self._tell()

    def close(self) -> None:
        """Close the run, unless `finish` is still to come."""
        if self.trainer.writes and self._begun and not self.trainer.finished:
            with self._going_on():
                self.end("interrupted" if self.trainer.history.interrupted else "failed")

    def finish(self, scores: Mapping[str, Mapping[str, float]], files: Iterable[Path]) -> None:
        """Tell final scores, add files of the run's folder, and close the run."""
        if not self.trainer.writes:
            return
        self._tell()
        with self._going_on():
            if self._begun:
                step = self.trainer.step
                self.send([(f"final/{part}/{name}", s, step) for part, of in scores.items() for name, s in of.items()])
                self.send_files([file for file in files if file.is_file()])
                self.end("finished")
        missing = len(self.trainer.history) - self.entries
        if missing or not self._begun:
            log.warning("%s has not all of this training; it is in the run's history.csv.", self.title)

    def _tell(self) -> None:
        if not self.trainer.writes:
            return
        with self._going_on():
            if not self._begun:
                self._last = self.begin()
                self._begun = True
            history = self.trainer.history
            columns = {name: values[self.entries :] for name, values in history.history.items()}
            points = [*_of_entries(columns), *_of_events(history.events, self.events)]
            self.send([point for point in points if point[2] > self._last])
            self.entries, self.events = len(history), len(history.events)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Log what goes wrong in another library, once, in place of ending a training for it."""
        try:
            yield
        except Exception as error:
            if not self._warned:
                reason = f"{type(error).__name__}: {shorten(str(error), 200, placeholder=' ...')}".rstrip(".: ")
                log.warning(
                    "%s cannot be told of this training: %s. Training goes on, and what is missing there follows as "
                    "soon as it can be reached.",
                    *(self.title, reason),
                )
            self._warned = True

    def state_dict(self) -> dict[str, Any]:
        """Which run it is, and how much of the history that was told."""
        return {"id": self.id, "entries": self.entries, "events": self.events}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that run."""
        self.id, self.entries, self.events = str(state["id"]), int(state["entries"]), int(state["events"])


def tag_of(name: str) -> str:
    """Under which tag a column of the history is shown."""
    held_out = name.removeprefix("val_")
    return name if name == "lr" else f"train/{name}" if name == held_out else f"val/{held_out}"


def _of_entries(columns: Mapping[str, Sequence[float]]) -> Iterator[Point]:
    for name, values in columns.items():
        if name not in CLOCK:
            yield from zip([tag_of(name)] * len(values), map(float, values), map(int, columns["step"]), strict=True)


def _of_events(events: Sequence[Mapping[str, Any]], told: int) -> Iterator[Point]:
    active = sum("bits" in event for event in events[:told])
    for event in events[told:]:
        if "sparsity" in event:
            yield f"sparsity/{event['site']}", float(event["sparsity"]), int(event["step"])
        else:
            active += 1
            yield "quantizers/started", float(active), int(event["step"])
