"""`TensorBoard`: writes the history to event files."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from qprune.layers import sites
from qprune.training.callbacks import Callback, Logs

CLOCK = ("step", "epoch", "seconds")


class TensorBoard(Callback):
    """Writes what the history holds for TensorBoard, over optimizer steps.

    Tags: ``train/loss`` and ``val/loss``, and so for every metric; ``lr``; ``sparsity/<site>`` for every mask, at the
    start and at each refresh; ``quantizers/active``, how many quantize; ``pictures/<number>`` at each validation. A
    resumed training replaces what lies past its checkpoint.

    Args:
        folder: of the event files.
        pictures: gives what is to be seen at a validation, uint8 (3, H, W) each; see `panels_of`.

    Example:
        >>> TensorBoard("runs/mine/tensorboard")
    """

    def __init__(self, folder: str | os.PathLike[str], pictures: Callable[[], Sequence[Tensor]] | None = None) -> None:
        self.folder, self.pictures = os.fspath(folder), pictures
        self.writer: Any = None
        self.active = self.written = 0

    def on_train_begin(self, logs: Logs) -> None:
        """Open the event file, and note which masks and quantizers act from the start."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        step = self.trainer.step
        self.writer = SummaryWriter(self.folder, purge_step=step + 1 if step else None)
        found = list(sites(self.trainer.net))
        for site in found:
            if site.mask is not None:
                self._write(f"sparsity/{site.name}", site.mask.sparsity, step)
        self.active = sum(bool(site.quant.active) for site in found if site.quant is not None)
        if any(site.quant is not None for site in found):
            self._write("quantizers/active", self.active, step)
        self.written = len(self.trainer.history.events)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the entry, and the driver's events since the one before."""
        for name, value in logs.items():
            if name not in CLOCK:
                self._write(_tag(name), value, logs["step"])
        for index, picture in enumerate(self.pictures() if self.pictures else ()):
            self.writer.add_image(f"pictures/{index}", picture, logs["step"])
        self._write_events()
        self.writer.flush()

    def on_train_end(self, logs: Logs) -> None:
        """Write the events since the last entry."""
        self._write_events()

    def _write_events(self) -> None:
        for event in self.trainer.history.events[self.written :]:
            if "sparsity" in event:
                self._write(f"sparsity/{event['site']}", event["sparsity"], event["step"])
            else:
                self.active += 1
                self._write("quantizers/active", self.active, event["step"])
        self.written = len(self.trainer.history.events)

    def _write(self, tag: str, value: float, step: int) -> None:
        self.writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _tag(name: str) -> str:
    if name == "lr":
        return name
    return f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
