"""`Trainer`: the training loop."""

import copy
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from qprune.data import EpochSampler
from qprune.errors import CheckpointError, DataError
from qprune.tasks import Task
from qprune.training.callbacks import Callback, CallbackList
from qprune.training.checkpoint import load_state
from qprune.training.driver import ScheduleDriver
from qprune.training.evaluation import evaluate, place, to_device
from qprune.training.history import History
from qprune.training.meter import Meter

log = logging.getLogger(__name__)

ECHO = 0.5  # seconds; launchers such as `timeout` pass on a Ctrl-C that the terminal has delivered already


class Trainer:
    """Trains a network for a number of optimizer steps, and validates it every so many.

    The one clock is the number of attempted optimizer steps. After each, in this order: the optimizer, the
    learning-rate schedule, the driver (which zeroes what was dropped), the metrics, the callbacks.

    Args:
        net: the network; moved to ``device``.
        task: its loss, step and metrics.
        train: loader of the training batches ``(input, target)``. Those of `qprune.data.train_loader` are resumed
            within an epoch, others are begun anew.
        val: loader of the validation batches; None where nothing is chosen.
        optimizer: over the parameters of ``net``.
        lr_schedule: stepped after each optimizer step; None keeps the learning rate.
        driver: of the masks and quantizers in ``net``; None if there are none.
        steps: how many optimizer steps to train.
        steps_per_epoch: steps of one pass over the data; by default the length of ``train``.
        validate_every: steps from one validation to the next, by default an epoch; there is always one after the last
            step.
        callbacks: called in their order; see `Callback`.
        device: where to train.
        channels_last: lay images and weights out with channels last, which is faster for convolutions.

    Attributes:
        history: the `History` so far.
        step: optimizer steps done.
        batch: the batch of the present step, on the device.
        loss: its loss, on the device.
        stop_training: set it to end after the present step.

    Example:
        >>> trainer = Trainer(net, Classification(classes=10), train=loader, optimizer=sgd, steps=500)
        >>> trainer.fit().history["accuracy"][-1] > 0.9
        True
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        *,
        train: DataLoader[Any],
        val: DataLoader[Any] | None = None,
        optimizer: Optimizer,
        lr_schedule: LRScheduler | None = None,
        driver: ScheduleDriver | None = None,
        steps: int,
        steps_per_epoch: int | None = None,
        validate_every: int | None = None,
        callbacks: Iterable[Callback] = (),
        device: torch.device | str = "cpu",
        channels_last: bool = True,
    ) -> None:
        self.net, self.task, self.train, self.val = net, task, train, val
        self.optimizer, self.lr_schedule, self.driver = optimizer, lr_schedule, driver
        self.steps, self.steps_per_epoch = steps, steps_per_epoch or len(train)
        self.validate_every = validate_every or self.steps_per_epoch
        self.device, self.channels_last = torch.device(device), channels_last
        place(net, self.device, channels_last)
        self.history, self.meter = History(), Meter(task, self.device)
        self.step, self.lr = 0, _lr(optimizer)
        self.batch: Any = None
        self.loss: Tensor | None = None
        self.stop_training = False
        self._rng: dict[str, Any] | None = None
        self._since, self._waited = 0.0, 0.0
        self._pressed, self._process = 0.0, os.getpid()
        self.callbacks = CallbackList()
        self.use(callbacks)

    def use(self, callbacks: Iterable[Callback]) -> None:
        """Append callbacks; before `resume_from` and `fit`."""
        for callback in callbacks:
            callback.set_trainer(self)
            self.callbacks.callbacks.append(callback)

    def fit(self) -> History:
        """Train up to the last step, or until `stop_training` or Ctrl-C, which finishes the step it comes in.

        Raises:
            TrainingError: if the loss or a score is no longer a number.
            DataError: if a loader gives no batch.
        """
        with self.callbacks.closing(), self._ctrl_c():
            self._begin()
            for batch in self._batches():
                self._train_step(batch)
                self._validate_if_due()
            self._end()
        return self.history

    @property
    def finished(self) -> bool:
        """Whether training is over, not merely interrupted."""
        return self._done() and not self.history.interrupted

    def _begin(self) -> None:
        self.history.interrupted = self.stop_training = False
        self.callbacks.on_train_begin(self.history.last())
        self.net.train()
        self._since = perf_counter()
        if self._rng is not None:
            _set_rng(self._rng)
            self._rng = None
        if not self._done() or self._validation_due():
            self.callbacks.on_epoch_begin(len(self.history), {})
        self._validate_if_due()  # Ctrl-C may have come before it

    def _end(self) -> None:
        self.history.interrupted &= self.step < self.steps or self._validation_due()
        self.callbacks.on_train_end(self.history.last())

    def _done(self) -> bool:
        return self.step >= self.steps or self.stop_training

    def _batches(self) -> Iterator[Any]:
        while not self._done():
            before = self.step
            for batch in self._until_interrupted(self._awaited(self._rest_of_epoch())):
                yield batch
                if self._done():
                    return
            if self.step == before and not self._done():
                raise DataError("There is nothing to train on: the loader gave no batch.")

    def _rest_of_epoch(self) -> Iterable[Any]:
        epoch, start = divmod(self.step, self.steps_per_epoch)
        sampler = self.train.sampler
        if isinstance(sampler, EpochSampler):
            sampler.epoch, sampler.start = epoch, start
        elif hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        return islice(self.train, self.steps_per_epoch - start)

    def _awaited(self, batches: Iterable[Any]) -> Iterator[Any]:
        waiting = iter(batches)
        while True:
            began = perf_counter()
            try:
                batch = next(waiting)
            except StopIteration:
                return
            finally:
                self._waited += perf_counter() - began
            yield batch

    def _until_interrupted(self, batches: Iterable[Any]) -> Iterator[Any]:
        try:
            for batch in batches:
                yield batch
                if self.history.interrupted:
                    return
        except RuntimeError:
            # loader processes that were spawned, not forked, die of the same Ctrl-C
            if not self.history.interrupted:
                raise

    def _train_step(self, batch: Any) -> None:
        number = self.step % self.steps_per_epoch
        self.callbacks.on_train_batch_begin(number, {})
        self.batch = batch = to_device(batch, self.device, self.channels_last)
        self.loss, output = self.task.step(self.net, batch)
        self.optimizer.zero_grad()
        self.loss.backward()
        self.lr = _lr(self.optimizer)
        self.optimizer.step()
        if self.lr_schedule is not None:
            self.lr_schedule.step()
        self.step += 1
        if self.driver is not None:
            self.history.events += self.driver.step()
        self.meter.update(self.loss, output, batch[1])
        self.callbacks.on_train_batch_end(number, {"loss": self.loss.detach()})

    def _validation_due(self) -> bool:
        due = self.step > 0 and (self.step % self.validate_every == 0 or self.step >= self.steps)
        return due and self.history.last().get("step") != self.step

    def _validate_if_due(self) -> None:
        if self._validation_due() and not self.history.interrupted:
            self._validate()

    def _validate(self) -> None:
        scores = self._val_scores()
        if self.history.interrupted:
            return  # the scores are of a part; they are taken anew when training goes on
        seconds, self._since = perf_counter() - self._since, perf_counter()
        log.info("Step %d: %.1f s, of which %.0f %% waiting for data", self.step, seconds, 100 * self._waited / seconds)
        self._waited = 0.0
        clock = {"lr": self.lr, "step": self.step, "epoch": self.step / self.steps_per_epoch, "seconds": seconds}
        self.history.add(self.meter.result() | scores | clock)
        self.meter.reset()
        self.callbacks.on_epoch_end(len(self.history) - 1, self.history.last())
        if not self._done():
            self.callbacks.on_epoch_begin(len(self.history), {})

    def _val_scores(self) -> dict[str, float]:
        if self.val is None:
            return {}
        batches = self._until_interrupted(self.val)
        scores = evaluate(self.net, self.task, batches, self.device, self.channels_last)
        return {f"val_{name}": score for name, score in scores.items()}

    @contextmanager
    def _ctrl_c(self) -> Iterator[None]:
        # Only the main thread may set handlers; elsewhere Ctrl-C does not arrive anyway.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: Any) -> None:
        if os.getpid() != self._process:
            return  # a forked loader process, which goes on until its parent ends it
        if self.history.interrupted:
            if perf_counter() - self._pressed > ECHO:
                raise KeyboardInterrupt  # the second Ctrl-C: do not even finish the step
            return
        self.history.interrupted = self.stop_training = True
        self._pressed = perf_counter()
        log.warning("Interrupted: stopping after this step and saving. Press Ctrl-C again to stop at once.")

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on from this step to the same result."""
        states = {name: part.state_dict() for name, part in ({"net": self.net} | self._parts()).items()}
        return states | {"step": self.step, "lr": self.lr, "rng": _get_rng()}

    def _parts(self) -> dict[str, Any]:
        names = ("optimizer", "lr_schedule", "driver", "history", "meter", "callbacks", "task")
        parts = {name: getattr(self, name) for name in names}
        return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}

    def resume_from(self, checkpoint: dict[str, Any]) -> None:
        """Go on where a checkpoint was written; `fit` then continues with its next step.

        Args:
            checkpoint: what `state_dict` gave, as read from ``last.pt``.

        Raises:
            CheckpointError: if it is of another network or from a longer training.
        """
        if checkpoint["step"] > self.steps:
            raise CheckpointError(
                f"The checkpoint was written at step {checkpoint['step']}, but this training ends at step {self.steps}."
                " Train longer, or start anew."
            )
        load_state(self.net, checkpoint["net"], "The checkpoint")
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(checkpoint[name]))
        self.step, self.lr, self._rng = checkpoint["step"], checkpoint["lr"], checkpoint["rng"]


def _lr(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _get_rng() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
