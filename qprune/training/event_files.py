"""`TensorBoard`: writes the history to event files."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from qprune.layers import sites
from qprune.training.callbacks import Callback, Logs
from qprune.training.event_log import EventLog

CLOCK = ("step", "epoch", "seconds")


class TensorBoard(Callback):
    """Writes what the history holds for TensorBoard, over optimizer steps.

    Tags: ``train/loss`` and ``val/loss``, and so for every metric; ``lr``; ``sparsity/<site>`` for every mask, at the
    start and at each refresh; ``quantizers/active``, how many quantize; ``pictures/<number>`` at each validation.

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
        for site in found:
            if site.mask is not None:
                self.add(f"sparsity/{site.name}", site.mask.sparsity, self.begun)
        self.active = sum(bool(site.quant.active) for site in found if site.quant is not None)
        if any(site.quant is not None for site in found):
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
                self.add(_tag(name), value, logs["step"])
        if self.trainer.writes and self.pictures is not None:
            for index, picture in enumerate(self.pictures()):
                self.events.add(f"pictures/{index}", picture, logs["step"])
        self._flush()

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
        """How far the event files go; what is known so far is written first, since a checkpoint follows."""
        self._flush()
        names = ("active", "written", "begun")
        facts = {name: getattr(self, name) for name in names}
        return facts | {"sizes": dict(self.events.sizes), "pending": list(self.events.pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.active, self.written, self.begun = state["active"], state["written"], state["begun"]
        self.events.sizes, self.events.pending = dict(state["sizes"]), list(state["pending"])


def _tag(name: str) -> str:
    if name == "lr":
        return name
    return f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
