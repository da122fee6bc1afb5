"""`TensorBoard`: writes the history to event files, with the pictures of a task and, if wanted, every learning rate."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qprune.data import Splits
from qprune.host import on_host
from qprune.layers import sites
from qprune.shrinking import evaluating
from qprune.training.callbacks import Callback, Logs
from qprune.training.evaluation import to_device
from qprune.training.event_log import EventLog
from qprune.training.samples import few_samples, view_of
from qprune.training.site_picture import draw_sites
from qprune.training.tracker import CLOCK, tag_of
from qprune.training.trainer import Trainer

log = logging.getLogger(__name__)

IMAGES = 4  # that are shown at each validation


class TensorBoard(Callback):
    """Writes what the history holds for TensorBoard, over optimizer steps.

    Tags: ``train/loss`` and ``val/loss``, and so for every metric; ``lr``; ``sparsity/<site>`` for every mask, at the
    start and at each refresh; ``sparsity/of_sites``, a picture of all of them at validations after one changed, where
    matplotlib is installed; ``quantizers/active``, how many quantize; ``scales/<site>``, a histogram of the binary
    logarithms of a quantizer's step sizes, and ``pictures/<number>``, at each validation.

    A checkpoint knows how far the event files went when it was written; a resumed training cuts them back to there, so
    that every point is in them once. Where they cannot be written, say on a full disk, that is logged once, training
    goes on, and the missing numbers follow.

    Args:
        folder: of the event files.
        pictures: gives what is to be seen at a validation, uint8 (3, H, W) each; see `panels_of`.

    Example:
        >>> TensorBoard("runs/mine/tensorboard")
    """

    def __init__(self, folder: str | os.PathLike[str], pictures: Callable[[], Sequence[Tensor]] | None = None) -> None:
        self.events, self.pictures = EventLog(folder), pictures
        self.active = self.written = 0
        self.begun: int | None = None

    def move_to(self, folder: Path) -> None:
        """Write into another folder from now on, to new files.

        Example:
            >>> tensorboard.move_to(Path("runs/mine-kept-1"))
        """
        self.events.folder = folder / self.events.folder.name
        self.events.begin(self.trainer.step)

    def on_train_begin(self, logs: Logs) -> None:
        """Cut the event files back to the checkpoint, or note which masks and quantizers act from the start."""
        if not self.trainer.writes:
            return
        self.events.begin(self.trainer.step)
        if self.begun is None:
            self._note_start()
        else:
            self.events.cut_back()

    def _note_start(self) -> None:
        self.begun = self.trainer.step
        found = list(sites(self.trainer.net))
        masks = {site.name: site.mask.keep for site in found if site.mask is not None}
        active = [site.quant.active for site in found if site.quant is not None]
        read = on_host([*masks.values(), *active])  # waits for the device
        for name, keep in zip(masks, read, strict=False):
            self.add(f"sparsity/{name}", 1 - int(keep.sum()) / len(keep), self.begun)
        self.active = sum(map(bool, read[len(masks) :]))
        if active:
            self.add("quantizers/active", self.active, self.begun)

    def add(self, tag: str, value: float, step: int) -> None:
        """Note a number of one's own; it is written with the next validation or checkpoint.

        Args:
            tag: its name.
            value: the number.
            step: steps done.

        Example:
            >>> tensorboard.add("gradients/norm", 1.25, trainer.step)
        """
        if self.trainer.writes:
            self.events.add(tag, float(value), step)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the entry, and the driver's events since the one before."""
        for name, value in logs.items():
            if name not in CLOCK:
                self.add(tag_of(name), value, logs["step"])
        if self.trainer.writes:
            for tag, tensor in self._drawn():
                self.events.add(tag, tensor, logs["step"])
        self._flush()

    def _drawn(self) -> Iterator[tuple[str, Tensor]]:
        """Pictures, and numbers to count."""
        for index, picture in enumerate(self.pictures() if self.pictures is not None else ()):
            yield f"pictures/{index}", picture
        quants = {site.name: site.quant for site in sites(self.trainer.net) if site.quant is not None}
        read = on_host([tensor for each in quants.values() for tensor in (each.active, each.scale)])
        for name, active, scale in zip(quants, read[::2], read[1::2], strict=True):
            powers = scale.float().log2().flatten()
            if active and powers.isfinite().all():  # else there is no histogram
                yield f"scales/{name}", powers
        history = self.trainer.history
        refreshes = [event for event in history.events if "sparsity" in event]
        since = max(history.history["step"][-2:-1], default=-1)
        if any(event["step"] > since for event in refreshes):
            drawn = draw_sites({event["site"]: event["sparsity"] for event in refreshes})
            if drawn is not None:
                yield "sparsity/of_sites", drawn

    def close(self) -> None:
        """Write what is left."""
        self._flush()

    def _flush(self) -> None:
        if self.begun is not None and self.trainer.writes:
            self._add_events(self.begun)
            self.events.flush()

    def _add_events(self, begun: int) -> None:
        news = self.trainer.history.events[self.written :]
        for event in (event for event in news if event["step"] > begun):
            if "sparsity" in event:
                self.add(f"sparsity/{event['site']}", event["sparsity"], event["step"])
            else:
                self.active += 1
                self.add("quantizers/active", self.active, event["step"])
        self.written += len(news)

    def state_dict(self) -> dict[str, Any]:
        """The sizes of the event files; pending points are written first, since a checkpoint follows."""
        self._flush()
        names = ("active", "written", "begun")
        facts = {name: getattr(self, name) for name in names}
        return facts | {"sizes": dict(self.events.sizes), "pending": list(self.events.pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sizes, so that the event files can be cut back to them."""
        self.active, self.written, self.begun = state["active"], state["written"], state["begun"]
        self.events.sizes, self.events.pending = dict(state["sizes"]), list(state["pending"])


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


def panels_of(trainer: Trainer, splits: Splits) -> Callable[[], list[Tensor]] | None:
    """A function that draws what the network makes of a few images of validation or test, spread over the split."""
    task: Any = trainer.task
    part = splits.val if splits.val is not None else splits.test
    if part is None or not hasattr(task, "panels"):
        return None
    view, batch = view_of(splits), few_samples(part, IMAGES)

    def draw() -> list[Tensor]:
        with evaluating(trainer.net), torch.no_grad():
            placed = to_device(batch, trainer.device, trainer.channels_last)
            return on_host(task.panels(trainer.net, placed, view))

    return draw
