"""`Trainer`: the training loop."""

import logging
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
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from qprune.data import EpochSampler
from qprune.errors import CheckpointError, DataError
from qprune.tasks import Task
from qprune.training.callbacks import Callback, CallbackList
from qprune.training.checkpoint import load_state
from qprune.training.driver import ScheduleDriver
from qprune.training.history import History
from qprune.training.meter import Meter

log = logging.getLogger(__name__)


class Trainer:
    """Trains a network for a number of optimizer steps, and validates it every so many.

    The one clock is the number of attempted optimizer steps. After each, in this order: the optimizer, the learning-rate
    schedule, the driver (which zeroes what was dropped), the metrics, the callbacks.

    Args:
        net: the network; moved to ``device``.
        task: its loss, step and metrics.
        train: loader of the training batches ``(input, target)``. Those of `qprune.data.train_loader` are resumed within an
            epoch, others are begun anew.
        val: loader of the validation batches; None where nothing is chosen.
        optimizer: over the parameters of ``net``.
        lr_schedule: stepped after each optimizer step; None keeps the learning rate.
        driver: of the masks and quantizers in ``net``; None if there are none.
        steps: how many optimizer steps to train.
        steps_per_epoch: steps of one pass over the data; by default the length of ``train``.
        validate_every: steps from one validation to the next, by default an epoch; there is always one after the last step.
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
        self._since = 0.0
        self.callbacks = CallbackList(callbacks)
        self.callbacks.set_trainer(self)

    def fit(self) -> History:
        """Train up to the last step, or until `stop_training` or Ctrl-C, which finishes the step it comes in.

        Raises:
            TrainingError: if the loss or a score is no longer a number.
            DataError: if the training loader gives no batch.
        """
        with self.callbacks.closing(), self._ctrl_c():
            self._begin()
            while not self._done():
                for batch in self._epoch():
                    self._train_step(batch)
                    if self._validation_due():
                        self._validate()
                    if self._done():
                        break
            self.callbacks.on_train_end(self.history.last())
        return self.history

    @property
    def finished(self) -> bool:
        """Whether training is over, not merely interrupted."""
        return self.step >= self.steps or (self.stop_training and not self.history.interrupted)

    def _begin(self) -> None:
        self.history.interrupted = False
        self.callbacks.on_train_begin(self.history.last())
        self.net.train()
        self._since = perf_counter()
        if self._rng is not None:
            _set_rng(self._rng)
        if not self._done():
            self.callbacks.on_epoch_begin(len(self.history), {})

    def _done(self) -> bool:
        return self.step >= self.steps or self.stop_training

    def _epoch(self) -> Iterator[Any]:
        epoch, start = divmod(self.step, self.steps_per_epoch)
        sampler = self.train.sampler
        if isinstance(sampler, EpochSampler):
            sampler.epoch, sampler.start = epoch, start
        elif hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        before = self.step
        yield from islice(self.train, self.steps_per_epoch - start)
        if self.step == before:
            raise DataError("The training loader gave no batch; it must have at least one per pass over the data.")

    def _train_step(self, batch: Any) -> None:
        number = self.step % self.steps_per_epoch
        self.callbacks.on_train_batch_begin(number, {})
        self.batch = batch = to_device(batch, self.device, self.channels_last)
        self.loss, output = self.task.step(self.net, batch)
        self.optimizer.zero_grad()
        self.loss.backward()  # type: ignore[no-untyped-call]
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
        return self.step % self.validate_every == 0 or self.step >= self.steps

    def _validate(self) -> None:
        entry: dict[str, Any] = self.meter.result()
        if self.val is not None:
            scores = evaluate(self.net, self.task, self.val, self.device, self.channels_last)
            entry |= {f"val_{name}": score for name, score in scores.items()}
        seconds, self._since = perf_counter() - self._since, perf_counter()
        entry |= {"lr": self.lr, "step": self.step, "epoch": self.step / self.steps_per_epoch, "seconds": seconds}
        self.meter.reset()
        self.history.add(entry)
        self.callbacks.on_epoch_end(len(self.history) - 1, entry)
        if not self._done():
            self.callbacks.on_epoch_begin(len(self.history), {})

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
        if self.history.interrupted:
            raise KeyboardInterrupt  # the second Ctrl-C: do not even finish the step
        log.warning("Interrupted: stopping after this step and saving. Press Ctrl-C again to stop at once.")
        self.history.interrupted = self.stop_training = True

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on from this step to the same result."""
        parts = {"net": self.net, "optimizer": self.optimizer, "lr_schedule": self.lr_schedule, "driver": self.driver}
        parts |= {"history": self.history, "meter": self.meter, "callbacks": self.callbacks}
        states = {name: part.state_dict() for name, part in parts.items() if part is not None}  # type: ignore[attr-defined]
        return states | {"step": self.step, "lr": self.lr, "rng": _get_rng()}

    def resume_from(self, checkpoint: dict[str, Any]) -> None:
        """Go on where a checkpoint was written; `fit` then continues with its next step.

        Args:
            checkpoint: what `state_dict` gave, as read from ``last.pt``.

        Raises:
            CheckpointError: if it is of another network or from a longer training.
        """
        if checkpoint["step"] > self.steps:
            raise CheckpointError(
                f"The checkpoint was written at step {checkpoint['step']}, but this training ends at step {self.steps}. "
                "Train longer, or start anew."
            )
        load_state(self.net, checkpoint["net"], "The checkpoint")
        for name in ("optimizer", "lr_schedule", "driver", "history", "meter", "callbacks"):
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(checkpoint[name])
        self.step, self.lr, self._rng = checkpoint["step"], checkpoint["lr"], checkpoint["rng"]


def evaluate(
    net: nn.Module,
    task: Task,
    loader: Iterable[Any],
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> dict[str, float]:
    """The mean loss per sample and the metrics of ``net`` in eval mode; its own mode is restored afterwards.

    Args:
        net: the network, on ``device``.
        task: whose loss and metrics.
        loader: batches ``(input, target)``.
        device: where to compute.
        channels_last: the layout of the images.

    Returns:
        ``{"loss": ..., "accuracy": ...}``, by the names of the task's metrics.

    Raises:
        DataError: if there is no batch.

    Example:
        >>> evaluate(net, Classification(classes=10), eval_loader(splits.test, batch=256))["accuracy"]
        0.9733333587646484
    """
    meter, training = Meter(task, device), net.training
    net.eval()
    with torch.no_grad():
        for batch in loader:
            batch = to_device(batch, device, channels_last)
            meter.update(*task.step(net, batch), batch[1])
    net.train(training)
    if not meter.count:
        raise DataError("There is nothing to evaluate on: the loader gave no batch.")
    return meter.result()


def place(net: nn.Module, device: torch.device | str, channels_last: bool) -> None:
    """Move a network to its device and memory layout, in place.

    Example:
        >>> place(net, "cpu", channels_last=True)
    """
    net.to(device=device, memory_format=torch.channels_last if channels_last else torch.preserve_format)  # type: ignore[call-overload]


def to_device(batch: Any, device: torch.device | str, channels_last: bool) -> Any:
    """Move the tensors of a batch to the device, those of four dimensions with channels last if asked.

    Example:
        >>> images, labels = to_device((torch.zeros(2, 3, 5, 7), torch.tensor([0, 4])), "cpu", channels_last=True)
        >>> images.stride()
        (105, 1, 21, 3)
    """

    def move(tensor: Tensor) -> Tensor:
        layout = torch.channels_last if channels_last and tensor.dim() == 4 else torch.preserve_format
        return tensor.to(device, non_blocking=True, memory_format=layout)

    return tree_map_only(Tensor, move, batch)


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
