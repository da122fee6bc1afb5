"""`Trainer`: the training loop."""

import logging
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from qprune.errors import DataError
from qprune.layers import recompute_in_backward
from qprune.tasks import Task
from qprune.training import ranks
from qprune.training.batches import check_target, explaining_single_values
from qprune.training.callbacks import Callback, CallbackList
from qprune.training.compiling import begin_step, compiled
from qprune.training.driver import Event, ScheduleDriver
from qprune.training.evaluation import evaluate, place, to_device
from qprune.training.feed import Feed
from qprune.training.history import History
from qprune.training.interrupt import Interruption
from qprune.training.meter import Meter
from qprune.training.reproducibility import set_rng
from qprune.training.resuming import explaining_misfit, take_up, training_state
from qprune.training.shrinking import Shrinker
from qprune.training.switches import switched
from qprune.training.update import Update

log = logging.getLogger(__name__)


class Trainer:
    """Trains a network for a number of optimizer steps, and validates it every so many.

    The one clock is the number of attempted optimizer steps. After each, in this order: the optimizer, the
    learning-rate schedule, the driver (which zeroes what was dropped), the moving average, the shrinker, the callbacks.

    Where torch.distributed is set up, each process trains with its share of every batch and all hold the same network;
    `fit`, `state_dict` and the meter wait for all of them.

    Args:
        net: the network; moved to ``device``.
        task: its loss, step and metrics.
        train: loader of the training batches ``(input, target)``. Those of `qprune.data.train_loader` are resumed
            within an epoch, others are begun anew.
        val: loader of the validation batches; None where nothing is chosen.
        optimizer: over the parameters of ``net``.
        lr_schedule: stepped after each optimizer step; None keeps the learning rate.
        driver: of the masks and quantizers in ``net``; None if there are none.
        shrinker: cuts the channels of frozen masks out of the network, if given.
        average: moving average of the weights, from `make_average`, which is then validated and saved as the model.
        steps: how many optimizer steps to train.
        steps_per_epoch: steps of one pass over the data; by default the length of ``train``.
        validate_every: steps from one validation to the next, by default an epoch; there is always one after the last
            step.
        callbacks: called in their order; see `Callback`.
        device: where to train.
        channels_last: lay images and weights out with channels last, which is faster for convolutions.
        precision: see `Update`, as for ``accumulate`` and ``clip_norm``; validation is always in float32.
        accumulate: parts that each batch is computed in.
        part_size: see `Update`.
        clip_norm: largest norm of the gradients.
        compile: backend of torch.compile for the training steps; None runs them as they are.
        compile_mode: its mode; ``"reduce-overhead"`` records steps on a GPU and replays them.
        tf32: let GPUs round the factors of float32 products to TF32 while training; validation is in float32.
        cudnn_benchmark: let cuDNN choose its convolutions by timing them.
        recompute: see `qprune.layers.recompute_in_backward`, which is called with ``net``; where it is not asked for,
            layers stay as they are.

    Attributes:
        history: the `History` so far.
        step: optimizer steps done.
        batch: the batch of the present step, on the device.
        loss: its loss, on the device.
        stop_training: set it to end after the present step.
        rng: after `resume_from`, the state of the random generators with which `fit` is to go on; else None.

    Example:
        >>> trainer = Trainer(net, Classification(classes=10), train=loader, optimizer=sgd, steps=20)
        >>> trainer.fit().last()["step"]
        20
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
        shrinker: Shrinker | None = None,
        average: AveragedModel | None = None,
        steps: int,
        steps_per_epoch: int | None = None,
        validate_every: int | None = None,
        callbacks: Iterable[Callback] = (),
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        precision: str = "float32",
        accumulate: int = 1,
        part_size: int = 1,
        clip_norm: float | None = None,
        compile: str | None = None,
        compile_mode: str | None = None,
        tf32: bool = False,
        cudnn_benchmark: bool = False,
        recompute: bool = False,
    ) -> None:
        self.net, self.task, self.train, self.val = net, task, train, val
        self.optimizer, self.lr_schedule, self.driver, self.average = optimizer, lr_schedule, driver, average
        self.shrinker, self.steps, self.steps_per_epoch = shrinker, steps, steps_per_epoch or len(train)
        if not self.steps_per_epoch:
            raise DataError("There is nothing to train on: the loader has no batch.")
        self.validate_every = validate_every or self.steps_per_epoch
        self.device, self.channels_last = torch.device(device), channels_last
        place(net, self.device, channels_last)
        if recompute:
            recompute_in_backward(net)
        view = compiled(net, compile, compile_mode) if compile else net
        self.replays = compile_mode is not None and self.device.type == "cuda"
        self.switches = {"tf32": tf32, "cudnn_benchmark": cudnn_benchmark}
        options: dict[str, Any] = {"accumulate": accumulate, "part_size": part_size, "clip_norm": clip_norm}
        options["ready"] = not compile
        self.update = Update(view, task, optimizer, device=self.device, precision=precision, **options)
        self.history, self.meter = History(), Meter(task, self.device)
        self.step, self.lr = 0, float(optimizer.param_groups[0]["lr"])
        self.batch: Any = None
        self.loss: Tensor | None = None
        self.stop_training = False
        self.interruption = Interruption()
        self.feed = Feed(train, self.steps_per_epoch, self.interruption)
        self.rng: dict[str, Any] | None = None
        self._since, self._whole = 0.0, True
        self.callbacks = CallbackList()
        self.use(callbacks)

    def use(self, callbacks: Iterable[Callback]) -> None:
        """Append callbacks; before `resume_from` and `fit`."""
        for callback in callbacks:
            callback.set_trainer(self)
            self.callbacks.append(callback)

    def fit(self) -> History:
        """Train up to the last step, or until ``stop_training``, Ctrl-C or SIGTERM, which let the present step end.

        Raises:
            TrainingError: if the loss or a score is no longer a number, a callback fails, or another process does.
            DataError: if a loader gives no batch, or one of its processes is gone.
        """
        with (
            switched(**self.switches),
            self.interruption.noted(),
            self.feed.watching(),
            self.callbacks.closing(),
            self.callbacks.saving(lambda: self._whole),
        ):
            with self.update.replicated():
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

    @property
    def averaged_net(self) -> nn.Module:
        """The network that is validated and saved as the model: the moving average if there is one, else ``net``."""
        return self.net if self.average is None else self.average.module

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return ranks.is_writer()

    def agree(self, flag: bool) -> bool:
        """Whether ``flag`` holds in any process; all of them must ask."""
        return ranks.agree(flag)[0]

    def _begin(self) -> None:
        self.history.interrupted = self.history.preempted = self.stop_training = False
        self.callbacks.on_train_begin(self.history.last())
        if self.step == 0 and self.driver is not None and not self.history.events:
            self._note(self.driver.begun)
            self._shrink(frozen=True)  # masks that were inherited are frozen from the start
        self.net.train()
        self._since = perf_counter()
        if self.rng is not None:
            with explaining_misfit("random numbers"):
                set_rng(self.rng, self.device)
            self.rng = None
        if not self._done() or self._validation_due():
            self.callbacks.on_epoch_begin(len(self.history), {})
        self._validate_if_due()  # Ctrl-C may have come before it

    def _end(self) -> None:
        unfinished = self.step < self.steps or self._validation_due()
        self.history.interrupted &= unfinished
        self.history.preempted &= unfinished
        self.callbacks.on_train_end(self.history.last())

    def _done(self) -> bool:
        return self.step >= self.steps or self.stop_training

    def _batches(self) -> Iterator[Any]:
        while not self._done():
            before = self.step
            for batch in self.feed.rest_of_epoch(self.step):
                yield batch
                if self._done():
                    return
            if self.step == before and not self._done():
                raise DataError("There is nothing to train on: the loader gave no batch.")

    def _train_step(self, batch: Any) -> None:
        number = self.step % self.steps_per_epoch
        self.callbacks.on_train_batch_begin(number, {})
        where = f"Batch {number} of the training data"
        check_target(self.task, batch[1], where)  # here, because on a GPU it would have to be read back
        self._whole = False
        self.batch = to_device(batch, self.device, self.channels_last)
        if self.replays:
            begin_step()
        with explaining_single_values(where):
            self.loss = self.update.backward(self.batch, self.feed.share(number), self.meter.update)
        self.callbacks.on_before_optimizer_step()
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        self.update.apply()
        if self.lr_schedule is not None:
            self.lr_schedule.step()
        ranks.average_statistics(self.net)
        self.step += 1
        events = self.driver.step() if self.driver is not None else []
        if self.average is not None:
            self.average.update_parameters(self.net)
        self._shrink(frozen=any(event.get("frozen", False) for event in events))
        self._whole = True
        self._note(events)
        self.callbacks.on_train_batch_end(number, {"loss": self.loss})
        self._agree()

    def _shrink(self, frozen: bool) -> None:
        if self.shrinker is None:
            return
        with self.update.autocast():
            cut = self.shrinker.step(frozen, self.update.inputs(self.batch))
        if cut:
            self.update.renew()

    def _note(self, events: list[Event]) -> None:
        self.history.events += events
        self.callbacks.on_events(events)

    def _agree(self) -> None:
        """Stop where any process is asked to stop."""
        signals = self.interruption
        came, preempted, stop = ranks.agree(signals.came, signals.preempted, self.stop_training)
        self.history.interrupted |= came
        self.history.preempted |= preempted
        self.stop_training = stop or came

    def _validation_due(self) -> bool:
        due = self.step > 0 and (self.step % self.validate_every == 0 or self.step >= self.steps)
        return due and self.history.last().get("step") != self.step

    def _validate_if_due(self) -> None:
        if self._validation_due() and not self.history.interrupted:
            self._validate()

    def _validate(self) -> None:
        scores = self._val_scores()
        self._agree()
        if self.history.interrupted:
            return  # the scores are of a part; they are taken anew when training goes on
        seconds, self._since = perf_counter() - self._since, perf_counter()
        waiting = 100 * self.feed.take_waited() / seconds
        log.info("Step %d: %.1f s, of which %.0f %% waiting for data", self.step, seconds, waiting)
        clock = {"lr": self.lr, "step": self.step, "epoch": self.step / self.steps_per_epoch, "seconds": seconds}
        self.history.add(self.meter.result() | scores | clock)
        self.meter.reset()
        self.callbacks.on_epoch_end(len(self.history) - 1, self.history.last())
        self._agree()
        if not self._done():
            self.callbacks.on_epoch_begin(len(self.history), {})

    def _val_scores(self) -> dict[str, float]:
        if self.val is None:
            return {}
        batches = self.feed.until_interrupted(self.val)
        scores = evaluate(self.averaged_net, self.task, batches, self.device, self.channels_last)
        return {f"val_{name}": score for name, score in scores.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state of the whole training, of every process: resuming from it gives the same result."""
        return training_state(self)

    def resume_from(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of a checkpoint; `fit` then continues with its next step.

        With another number of processes than before, those that are new begin with random numbers of their own.

        Args:
            checkpoint: what `state_dict` gave, as read from ``last.pt``.

        Raises:
            CheckpointError: if it is of another network or from a longer training, or holds something else.
        """
        take_up(self, checkpoint)
