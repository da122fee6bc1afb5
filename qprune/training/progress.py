"""`Progress`: a live line on a terminal, one plain line per epoch elsewhere."""

import sys
from time import perf_counter
from typing import Any, TextIO

from tqdm import tqdm

from qprune.escaping import visible
from qprune.training.callbacks import Callback, Logs

BAR = "{n_fmt}/{total_fmt} [{bar:24}] {remaining} {ms}/step{desc}"
DETAILS = ("iou_",)  # one number per class: in the history, too long for a line
REFRESH = 0.5  # seconds between two looks at the running means: each waits for the device


class Progress(Callback):
    """Shows how training goes.

    On a terminal, a live line ``n/N [bar] eta ms/step - loss: 0.1234 - accuracy: 0.87``, which stays when its epoch is
    over; elsewhere, one plain line per epoch. An epoch ends with a validation. Of several processes one shows it; until
    the epoch is over the live numbers are those of its own batches.

    Args:
        verbose: ``"auto"`` asks whether ``file`` is a terminal; 0 is silent, 1 the live line, 2 a line per epoch.
        file: where to; standard output by default.

    Raises:
        ValueError: for another ``verbose``.

    Example:
        >>> Progress(verbose=2)
    """

    def __init__(self, verbose: str | int = "auto", file: TextIO | None = None) -> None:
        if isinstance(verbose, bool) or verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                f'verbose must be "auto", 0 (silent), 1 (live) or 2 (a line per epoch); received {verbose!r}'
            )
        self.verbose, self.file = verbose, file
        self.bar: Any = None
        self._looked = self._began = 0.0
        self._from = 0

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Begin a line."""
        self._began, self._from = perf_counter(), self.trainer.step
        live = self.verbose == 1 or (self.verbose == "auto" and self._file().isatty())
        if live and self.trainer.writes:
            every, step = self.trainer.validate_every, self.trainer.step
            length = min(every - step % every, self.trainer.steps - step)
            self._file().write(f"Epoch {self._position(step)}\n")
            self.bar = _Bar(total=length, bar_format=BAR, file=self._file(), dynamic_ncols=True)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Move the live line on."""
        if self.bar is not None:
            if perf_counter() - self._looked > REFRESH:
                self._looked = perf_counter()
                self.bar.set_description_str(_numbers(self.trainer.meter.local()), refresh=False)
            self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """End the line with the entry's numbers."""
        shown = {name: value for name, value in logs.items() if name not in ("step", "epoch", "seconds")}
        if self.bar is not None:
            self.bar.set_description_str(_numbers(shown), refresh=True)
            self.close()
        elif self.verbose != 0 and self.trainer.writes:
            steps, seconds = self.trainer.step - self._from, perf_counter() - self._began
            pace = f"{seconds:.0f}s {_pace(seconds / max(1, steps))}/step"
            self._file().write(f"Epoch {self._position(self.trainer.step - 1)} - {pace}{_numbers(shown)}\n")
            self._file().flush()

    def close(self) -> None:
        """Leave the live line as it is."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _file(self) -> TextIO:
        return self.file or sys.stdout  # looked up late: it may be redirected meanwhile

    def _position(self, step: int) -> str:
        # epochs are counted in validations, as everywhere in the callbacks
        every = self.trainer.validate_every
        return f"{step // every + 1}/{-(-self.trainer.steps // every)}"


class _Bar(tqdm):
    """A bar that knows milliseconds per step."""

    monitor_interval = 0  # no thread: it is moved on at every step

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = super().format_dict
        facts["ms"] = _pace(facts["elapsed"] / facts["n"]) if facts["n"] else "?ms"
        return facts


def _pace(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 10 else f"{seconds:.0f}s"


def _numbers(logs: Logs) -> str:
    shown = {name: value for name, value in logs.items() if not name.removeprefix("val_").startswith(DETAILS)}
    # four decimals, but a small learning rate or loss must not read as 0
    texts = {name: f"{v:.4f}" if v == 0 or abs(v) >= 0.001 else f"{v:.2e}" for name, v in shown.items()}
    return "".join(f" - {visible(name)}: {text}" for name, text in texts.items())
