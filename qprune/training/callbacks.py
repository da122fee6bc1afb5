"""`Callback`: what may watch a training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qprune.training.trainer import Trainer

Logs = dict[str, Any]


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
        """Let go of files and terminal lines; called at the very end, however training ended."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to know: tensors and plain types. Called whenever a checkpoint is written."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
