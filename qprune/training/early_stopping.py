"""`EarlyStopping`: ends training when it gets no better."""

import logging
from typing import Any

from qprune.training.callbacks import Callback, Logs
from qprune.training.monitor import Monitor

log = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Ends training after ``patience`` validations in a row that were no better than the best.

    As in Keras, but only finished networks count: nothing is compared before every mask is frozen and every quantizer
    active, since pruning makes scores worse for a while, and a network that stops there would never be finished.

    With ``restore_best_weights`` the trainer's network has the weights of its best validation when training has come to
    its end. ``model.pt`` is the business of `ModelCheckpoint`: ``best.pt`` where there is one, else those weights.

    Args:
        monitor: the entry of the history to judge by; by default the task's own on the validation split.
        patience: how many validations in a row may be no better; 0 and 1 both end training at the first.
        min_delta: how much better is better.
        mode: ``"max"`` or ``"min"``; by default ``"min"`` for losses and the task's own for all else.
        restore_best_weights: keep the weights of the best validation, and put them back at the end.
        start_from_epoch: how many validations from the start of training do not count, finished or not.

    Raises:
        ValueError: for another mode, or a number below 0.
        TrainingError: at the first validation, if the history has no such entry.

    Example:
        >>> EarlyStopping("val_loss", patience=3, min_delta=0.001, restore_best_weights=True)
    """

    def __init__(
        self,
        monitor: str | None = None,
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        for name, value in (("patience", patience), ("min_delta", min_delta), ("start_from_epoch", start_from_epoch)):
            if value < 0:
                raise ValueError(f"{name} must be at least 0; received {value}")
        self.monitor = Monitor(monitor, mode)
        self.patience, self.min_delta, self.start_from_epoch = patience, min_delta, start_from_epoch
        self.restore_best_weights = restore_best_weights
        self.best: float | None = None
        self.best_step: int | None = None
        self.wait = 0
        self.stopped = False
        self.weights: dict[str, Any] = {}

    def on_train_begin(self, logs: Logs) -> None:
        """Keep a training that this callback has ended from going on when it is resumed."""
        self.trainer.stop_training |= self.stopped

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare with the best, and end training if there was no better one for too long."""
        trainer = self.trainer
        value = self.monitor.value(trainer.task, logs, type(self).__name__)
        if epoch < self.start_from_epoch or not (trainer.driver is None or trainer.driver.finished):
            return
        if self.monitor.better(trainer.task, value, self.best, self.min_delta):
            self.best, self.best_step, self.wait = value, trainer.step, 0
            if self.restore_best_weights:
                self.weights = {key: tensor.clone() for key, tensor in trainer.averaged_net.state_dict().items()}
            return
        self.wait += 1
        if self.wait >= self.patience:
            self.stopped = trainer.stop_training = True
            name = self.monitor.name_for(trainer.task)
            log.info("Stopping early at step %d: %s is no better than at step %s.", trainer.step, name, self.best_step)

    def on_train_end(self, logs: Logs) -> None:
        """Put the best weights back, unless training was merely interrupted."""
        if self.weights and self.trainer.finished:
            for net in (self.trainer.net, self.trainer.averaged_net):
                net.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, with its weights if they are kept."""
        names = ("best", "best_step", "wait", "stopped", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best value, and the weights if they were kept."""
        for name, value in state.items():
            setattr(self, name, value)
