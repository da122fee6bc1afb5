"""`LearningRateMonitor`: the learning rates of single steps."""

import logging

from qprune.training.callbacks import Callback, Logs
from qprune.training.event_files import TensorBoard

log = logging.getLogger(__name__)


class LearningRateMonitor(Callback):
    """Adds the learning rate of every parameter group to TensorBoard, between validations too.

    The history, and so the tag ``lr``, has one rate per validation. Here the tags are ``lr/<number of the group>``, or
    its name if it has one. They are written by the `TensorBoard` callback, and resumed with it.

    Args:
        every: steps from one point to the next.

    Raises:
        ValueError: if ``every`` is less than 1.

    Example:
        >>> LearningRateMonitor(every=10)
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 step; received {every}")
        self.every = every
        self.tensorboard: TensorBoard | None = None

    def on_train_begin(self, logs: Logs) -> None:
        """Find the callback that writes."""
        found = [callback for callback in self.trainer.callbacks if isinstance(callback, TensorBoard)]
        self.tensorboard = found[0] if found else None
        if self.tensorboard is None:
            log.warning("LearningRateMonitor writes to TensorBoard; add a TensorBoard callback, or it does nothing.")

    def on_before_optimizer_step(self) -> None:
        """Note the rates of the update that comes; the step counts as done, as in the history."""
        step = self.trainer.step + 1
        if self.tensorboard is None or step % self.every:
            return
        for number, group in enumerate(self.trainer.optimizer.param_groups):
            self.tensorboard.add(f"lr/{group.get('name', number)}", float(group["lr"]), step)
