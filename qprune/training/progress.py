"""`Progress`: a live line on a terminal, one plain line per epoch elsewhere, and a line for what the driver does."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, TextIO

from attrs import frozen
from tqdm import tqdm

from qprune.escaping import visible
from qprune.readable import PER_CLASS, duration_text, score_text
from qprune.training.callbacks import Callback, Logs
from qprune.training.driver import Event
from qprune.training.tracker import CLOCK

BAR = "{head} {n_fmt}/{total_fmt} [{bar:10}]{tail}"
AROUND = len(" / []") + 10  # of that what is not filled in
REFRESH = 0.5  # seconds between two looks at the running means: each waits for the device
USUAL = 80  # columns, where nobody says how many there are


@frozen
class Stage:
    """The run that is trained now, and its place among those that are trained one after the other.

    Attributes:
        name: of the run.
        number: its place, counted from 1.
        of: how many runs there are.
        later: steps of the runs after it, all together.

    Example:
        >>> str(Stage("digits/a75_layerwise", number=2, of=3, later=380))
        'digits/a75_layerwise (2 of 3)'
    """

    name: str
    number: int = 1
    of: int = 1
    later: int = 0

    def __str__(self) -> str:
        return self.name + (f" ({self.number} of {self.of})" if self.of > 1 else "")


class Progress(Callback):
    """Shows how training goes.

    On a terminal, a live line ``Epoch 5/25 12/19 [████    ] 14 s left - accuracy: 97.31 % - loss: 0.168``, whose place
    is taken by a line with the epoch's scores when that is over; elsewhere that line alone, whole and without control
    characters. The metric by which the task chooses comes first. On a terminal as much is shown as there is room for in
    a line. What froze, and which bits began, has a line before that of its epoch. An epoch ends with a validation. Of
    several processes one shows it; until the epoch is over the live numbers are those of its own batches.

    Args:
        verbose: ``"auto"`` asks whether ``file`` is a terminal; 0 is silent, 1 the live line, 2 a line per epoch.
        file: where to; standard output by default.
        stage: the run, which a headline names, and what comes after it: times left are those of all. None shows no
            headline.

    Raises:
        ValueError: for another ``verbose``.

    Example:
        >>> Progress(verbose=2)
    """

    def __init__(self, verbose: str | int = "auto", file: TextIO | None = None, stage: Stage | None = None) -> None:
        if isinstance(verbose, bool) or verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                f'verbose must be "auto", 0 (silent), 1 (live) or 2 (a line per epoch); received {verbose!r}'
            )
        self.verbose, self.file, self.stage = verbose, file, stage
        self.bar: _Bar | None = None
        self._looked = self._began = 0.0
        self._from = self._told = 0  # the step at which training began here, and how many events were told

    def on_train_begin(self, logs: Logs) -> None:
        """Say which run it is, and where it goes on."""
        self._began, self._from = perf_counter(), self.trainer.step
        self._told = len(self.trainer.history.events)
        if self.stage is not None:
            going_on = f", from step {self._from}" if self._from else ""
            self._say(("\n" if self.stage.number > 1 else "") + visible(str(self.stage)) + going_on)
        inherited = self._masks(inherited=True)
        if inherited and not self._from:
            self._say(f"  {inherited} masks taken over")

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Begin a live line."""
        self._tell_events()
        if self._live and self._shows:
            every, step = self.trainer.validate_every, self.trainer.step
            length = min(every - step % every, self.trainer.steps - step)
            head, items = f"Epoch {self._position(step)}", list(self._left())
            self.bar = _Bar(head, items, total=length, bar_format=BAR, file=self._file(), leave=False)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Move the live line on."""
        if self.bar is not None:
            if perf_counter() - self._looked > REFRESH:
                self._looked = perf_counter()
                self.bar.items = [*self._left(), *self._numbers(self.trainer.meter.local())]
            self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Put the entry's numbers in the place of the live line."""
        self.close()
        self._tell_events()
        head = f"Epoch {self._position(self.trainer.step - 1)}"
        items = [*self._numbers({name: value for name, value in logs.items() if name not in CLOCK}), *self._pace(logs)]
        if self._live:  # where the live line tells what is left
            self._say(head + _fitting(items, _width(self._file()) - len(head)))
        else:
            self._say("".join([head, *(f" -{left}" for left in self._left()), *items]))

    def on_train_end(self, logs: Logs) -> None:
        """Tell what happened since the last validation."""
        self.close()
        self._tell_events()

    def close(self) -> None:
        """Take the live line away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    @property
    def _live(self) -> bool:
        return self.verbose == 1 or (self.verbose == "auto" and self._file().isatty())

    @property
    def _shows(self) -> bool:
        return self.verbose != 0 and self.trainer.writes

    def _file(self) -> TextIO:
        return self.file or sys.stdout  # looked up late: it may be redirected meanwhile

    def _say(self, line: str) -> None:
        if self._shows:
            self._file().write(f"{line}\n")
            self._file().flush()

    def _position(self, step: int) -> str:
        # epochs are counted in validations, as everywhere in the callbacks
        every, of = self.trainer.validate_every, -(-self.trainer.steps // self.trainer.validate_every)
        return f"{step // every + 1:>{len(str(of))}}/{of}"

    def _left(self) -> Iterator[str]:
        """How long this run and those after it will take, at the pace of this one."""
        done = self.trainer.step - self._from
        steps = self.trainer.steps - self.trainer.step + (self.stage.later if self.stage else 0)
        if done and steps:
            yield f" {duration_text(steps * (perf_counter() - self._began) / done)} left"

    def _numbers(self, logs: Logs) -> Iterator[str]:
        monitor = self.trainer.task.monitor
        first = [name for name in (f"val_{monitor}", monitor, "val_loss", "loss") if name in logs]
        for name in dict.fromkeys([*first, *logs]):
            if not name.removeprefix("val_").startswith(PER_CLASS):  # in the history; too many for a line
                yield f" - {visible(name)}: {score_text(name, logs[name])}"

    def _pace(self, logs: Logs) -> Iterator[str]:
        seconds, steps = logs["seconds"], max(1, self.trainer.step - self._before())
        each = seconds / steps
        yield f" - {duration_text(seconds)}, {f'{each * 1000:.0f} ms' if each < 10 else duration_text(each)}/step"

    def _before(self) -> int:
        """The step at which the entry began that the history now ends with, as far as it was trained here."""
        before = self.trainer.history.history["step"][:-1]
        return max([self._from, *before[-1:]])

    def _masks(self, inherited: bool) -> int:
        driver = self.trainer.driver
        sites = driver.plan.sites if driver is not None else ()
        return sum(site.kind == "mask" and site.inherited == inherited for site in sites)

    def _tell_events(self) -> None:
        events = self.trainer.history.events
        news, self._told = events[self._told :], len(events)
        frozen = sum(event.get("frozen", False) for event in events)
        for line in _event_lines(news, f"froze {frozen} of {self._masks(inherited=False)}"):
            self._say(f"  {line}")


class _Bar(tqdm):
    """A bar between a head and as many items as there is room for."""

    monitor_interval = 0  # no thread: it is moved on at every step

    def __init__(self, head: str, items: Sequence[str], **options: Any) -> None:
        self.head, self.items = head, items
        super().__init__(**options)  # draws it

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = super().format_dict
        taken = len(f"{self.head}{facts['n']}{facts['total']}") + AROUND
        return facts | {"head": self.head, "tail": _fitting(self.items, _width(self.fp) - taken), "ncols": None}


def _event_lines(events: Iterable[Event], froze: str) -> Iterator[str]:
    frozen: list[int] = []
    starts: dict[tuple[int, int], int] = {}
    for event in events:
        if "bits" in event:
            start = (event["step"], event["bits"])
            starts[start] = starts.get(start, 0) + 1
        elif event["frozen"]:
            frozen.append(event["step"])
    if frozen:
        first, last = frozen[0], frozen[-1]
        yield f"{f'step {first}' if first == last else f'steps {first} to {last}'}: {froze}"
    for (step, bits), sites in starts.items():
        yield f"step {step}: {bits} bits from here, {sites} {'site' if sites == 1 else 'sites'}"


def _fitting(items: Iterable[str], room: int) -> str:
    """The first items, as many as there is room for; none in place of one that is too long, so that columns stay."""
    told = ""
    for item in items:
        if len(told) + len(item) >= room:  # terminals wrap where the last column is written to
            break
        told += item
    return told


def _width(file: TextIO) -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns or USUAL
    except (AttributeError, OSError, ValueError):  # no file of the system
        return USUAL
