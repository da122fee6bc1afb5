"""`Callback`: what may watch a training; `CallbackList`: calls several in order, and names the one that fails."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from qprune.data import LoaderError
from qprune.errors import QpruneError, TrainingError
from qprune.spelling import closest
from qprune.training import ranks

if TYPE_CHECKING:
    from qprune.training.trainer import Trainer

log = logging.getLogger(__name__)

Logs = dict[str, Any]


class Callback:
    """Base class of what watches a training; every hook does nothing until it is overridden.

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

    def on_before_optimizer_step(self) -> None:
        """Called between backward and update, when gradients are there; the step is half done, so nothing is saved."""

    def on_freeze(self, site: str) -> None:
        """Called after a step for every mask that froze with it; its dropped channels are zero by now."""

    def on_quantize(self, site: str) -> None:
        """Called after a step for every quantizer that became active with it."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after a step with ``{"loss": tensor}``, still on the device: reading it waits for the device."""

    def on_exception(self, error: Exception) -> None:
        """Called when the error of a callback ends training, between two steps; errors of this hook are only logged."""

    def close(self) -> None:
        """Close files and terminal lines; called at the very end, however training ended."""

    def state_dict(self) -> dict[str, Any]:
        """State to be saved, tensors and plain types; called whenever a checkpoint is written."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` gave."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
PER_STEP = ("on_train_batch_begin", "on_before_optimizer_step", "on_train_batch_end")


class LambdaCallback(Callback):
    """Calls functions as hooks; see `Callback` for the hooks and what each is given.

    Args:
        hooks: functions by the names of hooks.

    Raises:
        ValueError: for a name that is no hook.

    Example:
        >>> LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for hook, function in hooks.items():
            if hook not in HOOKS:
                near = closest(hook, HOOKS)
                hint = f"Nearest: {near}" if near else f"Hooks are {', '.join(HOOKS)}"
                raise ValueError(f"{hook} is no hook. {hint}.")
            setattr(self, hook, function)


class CallbackError(TrainingError):
    """A callback that raised, and so ended training; the error it raised is the cause of this one.

    Args:
        callback: the name of its class.
        hook: in which hook.
        step: optimizer steps done by then; None if it watched no training.
        reason: kind and text of the error it raised.

    Attributes:
        saved: whether a checkpoint of that step was written; set by the callback that writes it.

    Example:
        >>> str(CallbackError("Crash", "on_epoch_end", 13, "OSError: no network"))
        'Crash failed in on_epoch_end at step 13: OSError: no network. That step was not saved; mend it, then ...'
    """

    def __init__(self, callback: str, hook: str, step: int | None, reason: str) -> None:
        super().__init__(callback, hook, step, reason)  # all four, so that it can be pickled
        self.callback, self.hook, self.step, self.reason = callback, hook, step, reason
        self.saved = False

    def __str__(self) -> str:
        at = "" if self.step is None else f" at step {self.step}"
        way_out = (
            "Everything up to that step is saved; mend it and go on with --resume."
            if self.saved
            else "That step was not saved; mend it, then go on from the last checkpoint or train again."
        )
        return f"{self.callback} failed in {self.hook}{at}: {self.reason}. {way_out}"


class CallbackList:
    """Calls each hook of every callback, in the order of the list.

    When ``on_train_batch_end`` or ``on_epoch_end`` is called the driver has acted on the step, so that dropped entries
    are zero, and in the latter the entry is in the history. `ModelCheckpoint` belongs at the end: then ``last.pt``
    holds what the others have noted.

    A callback that raises does not keep the others from their part: the hook is called for all of them, then the first
    error is raised as a `CallbackError`. Only qprune's own errors and Ctrl-C go through at once.

    Args:
        callbacks: in the order in which they are to be called.

    Raises:
        CallbackError: from a hook, if a callback raised in it.

    Example:
        >>> callbacks = CallbackList([LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs["loss"]))])
        >>> callbacks.on_epoch_end(0, {"loss": 0.5})
        0.5
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)
        self._listeners: dict[str, list[Callback]] = {}

    def __iter__(self) -> Iterator[Callback]:
        return iter(self.callbacks)

    def __getattr__(self, hook: str) -> Callable[..., None]:
        if hook not in HOOKS:
            raise AttributeError(f"there is no hook {hook}, only {', '.join(HOOKS)}")
        return partial(self._call, hook)

    def append(self, callback: Callback) -> None:
        """Add a callback at the end; before training."""
        self.callbacks.append(callback)
        self._listeners.clear()

    def on_exception(self, error: Exception) -> None:
        """Call this hook of every callback; what they raise is logged, so that ``error`` is not lost."""
        try:
            self._call("on_exception", error)
        except QpruneError as another:
            log.error("After %s had failed: %s", getattr(error, "callback", type(error).__name__), another)

    def on_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Call the hooks for what a driver's step began: quantizers that are active now, and masks that are frozen."""
        for event in events:
            if "bits" in event:
                self._call("on_quantize", event["site"])
            elif event["frozen"]:
                self._call("on_freeze", event["site"])

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close every callback at the end."""
        try:
            yield
        except BaseException:
            try:
                self._call("close")
            except QpruneError as another:
                log.error("%s", another)  # the error that ended training is the one to see
            raise
        self._call("close")

    @contextmanager
    def saving(self, whole: Callable[[], bool]) -> Iterator[None]:
        """Have the step saved at which a callback or a loader fails, if ``whole`` says that it is whole by then."""
        try:
            yield
        except (CallbackError, LoaderError) as error:
            error.saved = False
            # of several processes the others may be waiting elsewhere; then the last checkpoint has to do
            if whole() and ranks.world() == 1:
                self.on_exception(error)
            raise

    def _call(self, hook: str, *arguments: Any) -> None:
        failure: CallbackError | None = None
        for callback in self._listening(hook):
            try:
                getattr(callback, hook)(*arguments)
            except QpruneError:
                if failure is not None:
                    log.error("%s", failure)
                raise
            except Exception as error:
                if failure is None:
                    failure = _named(callback, hook, error)
                else:
                    log.error("%s", _named(callback, hook, error))
        if failure is not None:
            raise failure

    def _listening(self, hook: str) -> list[Callback]:
        if hook not in PER_STEP:
            self._listeners.clear()  # a callback may put its hooks in place in another hook, but not in those of a step
        if hook not in self._listeners:
            self._listeners[hook] = [callback for callback in self.callbacks if _overrides(callback, hook)]
        return self._listeners[hook]

    def state_dict(self) -> dict[str, Any]:
        """The states of those callbacks that have one."""
        return {name: state for name, callback in self._numbered() if (state := callback.state_dict())}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Restore the state of every callback; states of callbacks that are missing now are named in the log."""
        for name, callback in self._numbered():
            if name in states:
                callback.load_state_dict(states[name])
        for name in states.keys() - dict(self._numbered()).keys():
            log.warning("The checkpoint has the state of a callback %s, which this training does not have.", name)

    def _numbered(self) -> Iterator[tuple[str, Callback]]:
        counts: dict[str, int] = {}
        for callback in self.callbacks:
            kind = type(callback).__name__
            counts[kind] = counts.get(kind, 0) + 1
            yield f"{kind}-{counts[kind]}", callback


def _overrides(callback: Callback, hook: str) -> bool:
    # the bound method, not the class: a hook may also be set on the instance
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


def _named(callback: Callback, hook: str, error: Exception) -> CallbackError:
    trainer = getattr(callback, "trainer", None)  # not there before `Callback.set_trainer`
    text = shorten(str(error), 200, placeholder=" ...")  # the whole of it is in the traceback
    reason = f"{type(error).__name__}: {text}".rstrip(".: ")
    failure = CallbackError(type(callback).__name__, hook, trainer and trainer.step, reason)
    failure.__cause__ = error
    return failure
