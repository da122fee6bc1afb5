"""`ModelCheckpoint`: writes ``last.pt``, ``best.pt`` and ``model.pt``."""

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qprune.training.callbacks import Callback, Logs
from qprune.training.checkpoint import replaced, save


class ModelCheckpoint(Callback):
    """Writes a run's checkpoints; belongs at the end of the callbacks.

    ``last.pt``, from which training is resumed, is written at every validation and when Ctrl-C ends it. ``best.pt`` is
    the best model on the validation split, chosen only after every mask is frozen and every quantizer active.
    ``model.pt`` is written when training is over: ``best.pt`` if there is one, else the model after the last step.

    ``best.pt`` and ``model.pt`` hold ``{"spec", "state", "classes", "shape", "palette", "step", "scores"}`` for `load`.

    Args:
        folder: where to; it must exist.
        monitor: the entry of the history to choose by; by default the task's own on the validation split.
        mode: ``"max"`` or ``"min"``; by default the task's own.
        spec: the resolved spec as text, stored in the files.
        classes: names of the classes, stored in the files.
        shape: ``(C, H, W)`` of an image, stored in the files.
        palette: one colour per class, stored in the files.

    Raises:
        ValueError: for a mode that is neither.

    Example:
        >>> ModelCheckpoint("runs/mine", monitor="val_loss", mode="min")
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        monitor: str | None = None,
        mode: str | None = None,
        spec: str = "",
        classes: Sequence[str] = (),
        shape: Sequence[int] = (),
        palette: Sequence[Sequence[int]] = (),
    ) -> None:
        if mode not in (None, "max", "min"):
            raise ValueError(f'mode must be "max" or "min"; received {mode!r}')
        self.folder, self.monitor, self.mode = Path(folder), monitor, mode
        self.about = {"spec": spec, "classes": list(classes), "shape": list(shape), "palette": list(map(list, palette))}
        self.best: float | None = None
        self.best_step: int | None = None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write ``best.pt`` if this is the best finished model so far, then ``last.pt``."""
        if self._is_best(logs):
            self._save_model("best.pt", logs)
        self._save_last()

    def on_train_end(self, logs: Logs) -> None:
        """Write ``last.pt``, and ``model.pt`` unless training was interrupted."""
        self._save_last()
        if not self.trainer.finished:
            return
        if self.best_step is None:
            self._save_model("model.pt", logs)
        else:
            with replaced(self.folder / "model.pt") as file, (self.folder / "best.pt").open("rb") as best:
                shutil.copyfileobj(best, file)

    def _is_best(self, logs: Logs) -> bool:
        driver, task = self.trainer.driver, self.trainer.task
        value = logs.get(self.monitor or f"val_{task.monitor}")
        if value is None or math.isnan(value) or (driver is not None and not driver.finished):
            return False
        sign = 1 if (self.mode or task.mode) == "max" else -1
        if self.best is not None and sign * value <= sign * self.best:
            return False
        self.best, self.best_step = value, self.trainer.step
        return True

    def _save_last(self) -> None:
        save(self.folder / "last.pt", self.trainer.state_dict() | {"spec": self.about["spec"]})

    def _save_model(self, name: str, logs: Logs) -> None:
        facts = {"state": self.trainer.net.state_dict(), "step": self.trainer.step, "scores": dict(logs)}
        save(self.folder / name, self.about | facts)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and its step."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on choosing from there."""
        self.best, self.best_step = state["best"], state["best_step"]
