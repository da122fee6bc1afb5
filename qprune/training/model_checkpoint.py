"""`ModelCheckpoint`: writes ``last.pt``, ``best.pt`` and ``model.pt``."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor, nn

from qprune.data import LoaderError
from qprune.errors import CheckpointError, ShrinkError
from qprune.flow import unhooked_copy
from qprune.graph import graph_of
from qprune.shrinking import record
from qprune.training.callbacks import Callback, CallbackError, Logs
from qprune.training.checkpoint import load, save
from qprune.training.monitor import Monitor

log = logging.getLogger(__name__)


class ModelCheckpoint(Callback):
    """Writes a run's checkpoints; belongs at the end of the callbacks.

    ``last.pt``, from which training is resumed, is written at every validation, every so many steps or minutes if
    asked, and when training ends: by its last step, by Ctrl-C or SIGTERM, or by the error of another callback; the one
    before is kept as ``previous.pt``. ``best.pt`` is the best model on the validation split, chosen only after every
    mask is frozen and every quantizer active. ``model.pt`` is written when training is over: ``best.pt`` if there is
    one, else the model after the last step. The model is the network, or its moving average where one is kept.

    If a file cannot be written, say on a full disk, that is logged, the file before stays, and training goes on; only
    at the end of training it is an error. Of several processes one writes.

    ``best.pt`` and ``model.pt`` hold ``{"spec", "state", "cuts", "classes", "shape", "palette", "step", "scores"}`` for
    `load`. Where the network is shrunk while it trains, ``model.pt`` is also without what may only go at the end.

    Args:
        folder: where to; it must exist.
        monitor: the entry of the history to choose by; by default the task's own on the validation split.
        mode: ``"max"`` or ``"min"``; by default ``"min"`` for losses and the task's own for all else.
        save_best_only: write no ``last.pt``, which saves space; the training cannot be resumed.
        every: steps from one ``last.pt`` to the next between validations.
        minutes: minutes after which the next step writes ``last.pt``, wherever it is.
        spec: the resolved spec as text, stored in the files.
        classes: names of the classes, stored in the files.
        shape: ``(C, H, W)`` of an image, stored in the files.
        palette: one colour per class, stored in the files.
        example: an input of a network of the user's own, whose graph is then stored in ``model.pt``, so that `load`
            needs none of its classes; see `qprune.save`.

    Raises:
        ValueError: for a mode that is neither, intervals that are not above 0, or intervals with ``save_best_only``.
        TrainingError: at the first validation, if the history does not have the ``monitor``.
        CheckpointError: if a file cannot be written at the end of training.

    Example:
        >>> ModelCheckpoint("runs/mine", monitor="val_loss", every=500)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        monitor: str | None = None,
        mode: str | None = None,
        save_best_only: bool = False,
        every: int | None = None,
        minutes: float | None = None,
        spec: str = "",
        classes: Sequence[str] = (),
        shape: Sequence[int] = (),
        palette: Sequence[Sequence[int]] = (),
        example: Tensor | None = None,
    ) -> None:
        _check_intervals(every, minutes, save_best_only)
        self.folder, self.monitor = Path(folder), Monitor(monitor, mode)
        self.save_best_only, self.every, self.minutes = save_best_only, every, minutes
        self.about = {"spec": spec, "classes": list(classes), "shape": list(shape), "palette": list(map(list, palette))}
        self.example = example
        self.best: float | None = None
        self.best_step: int | None = None
        self._saved: tuple[int, int] | None = None
        self._since = monotonic()

    def on_train_begin(self, logs: Logs) -> None:
        """Begin counting minutes, and choose the best anew if its file is gone."""
        self._saved, self._since = None, monotonic()
        self._check_best()

    def _check_best(self) -> None:
        if self.trainer.writes and self.best_step is not None and not self._best.is_file():
            log.warning("%s, the model of step %s, is gone; the best is chosen anew.", self._best, self.best_step)
            self.best = self.best_step = None

    def move_to(self, folder: Path) -> None:
        """Write into another folder from now on, in which nothing is saved yet.

        Example:
            >>> checkpoint.move_to(Path("runs/mine-kept-1"))
        """
        self.folder, self._saved = folder, None
        self._check_best()

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write ``last.pt`` if it is time; where a validation comes next, it does that."""
        step = self.trainer.step
        validation_next = step % self.trainer.validate_every == 0 or step >= self.trainer.steps
        if (self.every or self.minutes) and not validation_next and self._is_time():
            self._tried("last.pt", self._save_last)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write ``best.pt`` if this is the best finished model so far, then ``last.pt``."""
        if self._is_best(logs) and self._tried("best.pt", lambda: self._save("best.pt", self._content(logs))):
            self.best, self.best_step = self._value(logs), self.trainer.step
        self._tried("last.pt", self._save_last)

    def on_train_end(self, logs: Logs) -> None:
        """Write ``last.pt``, unless that is done, and ``model.pt``, unless training was interrupted."""
        # what a validation has saved is left: other callbacks may by now have put the best weights in place
        if self.trainer.agree(self._saved != self._position()):
            self._save_last()
        if self.trainer.finished:
            self._finish(logs)

    def on_exception(self, error: Exception) -> None:
        """Write ``last.pt``, so that nothing is lost."""
        if self._saved != self._position():
            self._save_last()
        if isinstance(error, CallbackError | LoaderError):
            error.saved = self._saved == self._position()

    def _finish(self, logs: Logs) -> None:
        trainer, chosen = self.trainer, self.best_step is not None
        if not trainer.writes:
            return
        # read, not copied: a file that was damaged meanwhile must not become the model
        content, net = load(self._best) if chosen else self._content(logs), unhooked_copy(trainer.averaged_net)
        net.load_state_dict(content["state"])
        if trainer.shrinker is not None:
            net = trainer.shrinker.finish(net)
        self._save("model.pt", content | {"state": net.state_dict(), "cuts": record(net)} | self._graph(net))

    def _graph(self, net: nn.Module) -> dict[str, Any]:
        if self.example is None:
            return {}
        try:
            return {"graph": graph_of(net, self.example)}
        except ShrinkError as error:
            log.warning("model.pt is opened with the network's own code only, model=: %s", error)
            return {}

    @property
    def _best(self) -> Path:
        return self.folder / "best.pt"

    def _position(self) -> tuple[int, int]:
        return self.trainer.step, len(self.trainer.history)

    def _is_time(self) -> bool:
        if self.every is not None and self.trainer.step % self.every == 0:
            return True
        # clocks of several processes differ, but all of them must save together
        return self.minutes is not None and self.trainer.agree(monotonic() - self._since >= 60 * self.minutes)

    def _value(self, logs: Logs) -> float:
        return self.monitor.value(self.trainer.task, logs, type(self).__name__)

    def _is_best(self, logs: Logs) -> bool:
        driver, task = self.trainer.driver, self.trainer.task
        if self.monitor.name is None and self.monitor.name_for(task) not in logs:
            return False  # nothing is held out to choose on
        better = self.monitor.better(task, self._value(logs), self.best)
        return better and (driver is None or driver.finished)

    def _save_last(self) -> None:
        if self.save_best_only:
            return
        state = self.trainer.state_dict()  # asks all processes
        if self.trainer.writes:
            save(self.folder / "last.pt", state | {"spec": self.about["spec"]}, keep_as="previous.pt")
        self._saved, self._since = self._position(), monotonic()

    def _content(self, logs: Logs) -> dict[str, Any]:
        net = self.trainer.averaged_net
        model = {"state": net.state_dict(), "cuts": record(net)}
        return self.about | model | {"step": self.trainer.step, "scores": dict(logs)}

    def _save(self, name: str, content: dict[str, Any]) -> None:
        if self.trainer.writes:
            save(self.folder / name, content)

    def _tried(self, name: str, write: Callable[[], None]) -> bool:
        try:
            write()
        except CheckpointError as error:
            if not isinstance(error.__cause__, OSError):
                raise  # not the disk, but what was to be saved
            log.warning("Training goes on without a new %s: %s", name, error)
            self._since = monotonic()
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and its step."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best value and its step."""
        self.best, self.best_step = state["best"], state["best_step"]


def _check_intervals(every: int | None, minutes: float | None, save_best_only: bool) -> None:
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1 step; received {every}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0; received {minutes}")
    if save_best_only and (every or minutes):
        raise ValueError(
            "every and minutes are about last.pt, which save_best_only leaves out; "
            f"received every={every}, minutes={minutes} with it"
        )
