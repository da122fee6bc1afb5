"""`Callback`: what may watch a training, and the list that calls them in order."""

import csv
import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprune.training.checkpoint import replaced

if TYPE_CHECKING:
    from qprune.training.trainer import Trainer

Logs = dict[str, Any]
log = logging.getLogger(__name__)


class Callback:
    """Watches a training; every hook does nothing until it is overridden.

    An "epoch" of the hooks ends with a validation, whatever its length; ``epoch`` counts them from 0. Callbacks may set
    ``trainer.stop_training = True``. They must not draw from torch's global generator, which the network's dropout
    uses.

    Attributes:
        trainer: the `Trainer`, from `set_trainer` on.

    Example:
        >>> class StopAtHalf(Callback):
        ...     def on_epoch_end(self, epoch, logs):
        ...         self.trainer.stop_training = logs["loss"] < 0.5
    """

    trainer: "Trainer"

    def set_trainer(self, trainer: "Trainer") -> None:
        """Called once, before training."""
        self.trainer = trainer

    def on_train_begin(self, logs: Logs) -> None:
        """Called before the first step; ``logs`` is the last entry of a training that is resumed, else empty."""

    def on_train_end(self, logs: Logs) -> None:
        """Called after the last step, also if Ctrl-C or ``stop_training`` made it the last; not after an error."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Called before the first step after a validation; ``logs`` is empty."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Called after a validation with the entry that was just added to the history."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Called before a step; ``batch`` is its number within the pass over the data; ``logs`` is empty."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after a step with ``{"loss": tensor}``, still on the device: reading it waits for the device."""

    def close(self) -> None:
        """Let go of files and terminal lines; called at the very end, however training ended."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to know: tensors and plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class CallbackList:
    """Calls each hook of every callback, in the order of the list.

    When ``on_epoch_end`` is called the driver has acted on the step, so that dropped entries are zero, and the entry is
    in the history. `ModelCheckpoint` belongs at the end: then ``last.pt`` holds what the others have noted.

    Args:
        callbacks: in the order in which they are to be called.

    Example:
        >>> callbacks = CallbackList([CSVLogger("history.csv")])
        >>> callbacks.on_epoch_end(0, {"loss": 0.5})
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)

    def __iter__(self) -> Iterator[Callback]:
        return iter(self.callbacks)

    def __getattr__(self, hook: str) -> Any:
        if not hook.startswith("on_"):
            raise AttributeError(hook)

        def call(*arguments: Any) -> None:
            for callback in self.callbacks:
                getattr(callback, hook)(*arguments)

        return call

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close every callback at the end."""
        try:
            yield
        finally:
            for callback in self.callbacks:
                callback.close()

    def state_dict(self) -> dict[str, Any]:
        """The states of those callbacks that have one."""
        return {name: state for name, callback in self._named() if (state := callback.state_dict())}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Give every state to the callback it came from; those that are not there any more are named in the log."""
        for name, callback in self._named():
            if name in states:
                callback.load_state_dict(states[name])
        for name in states.keys() - dict(self._named()).keys():
            log.warning("The checkpoint has the state of a callback %s, which this training does not have.", name)

    def _named(self) -> Iterator[tuple[str, Callback]]:
        counts: dict[str, int] = {}
        for callback in self.callbacks:
            kind = type(callback).__name__
            counts[kind] = counts.get(kind, 0) + 1
            yield f"{kind}-{counts[kind]}", callback


class CSVLogger(Callback):
    """Writes the history to a CSV file: a column per name, a row per validation.

    The whole file is written anew each time, so that a resumed training leaves no row twice and no row out.

    Args:
        path: the file.

    Example:
        >>> CSVLogger("runs/mine/history.csv")
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write all entries up to this one."""
        columns = self.trainer.history.history
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([list(columns), *zip(*columns.values(), strict=True)])
        with replaced(self.path) as file:
            file.write(text.getvalue().encode())
