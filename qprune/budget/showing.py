"""`Shown`: the cost of a measurement before it starts, and then how far it is."""

from typing import Any, TextIO

from tqdm import tqdm

BAR = "{n_fmt}/{total_fmt} [{bar:24}] {remaining} {desc}"


class Shown:
    """Tells what a measurement costs before it starts, and then how it goes.

    ``verbose`` 0 is silent; 2 tells the cost; 1 shows a live line, too; ``"auto"`` does where ``out`` is a terminal.
    """

    def __init__(self, verbose: str | int, out: TextIO) -> None:
        if isinstance(verbose, bool) or verbose not in ("auto", 0, 1, 2):
            raise ValueError(f'verbose must be "auto", 0 (silent), 1 (live) or 2 (the cost); received {verbose!r}')
        self.out, self.silent = out, verbose == 0
        self.live = verbose == 1 or (verbose == "auto" and out.isatty())

    def cost(self, what: str, seconds: float) -> None:
        """Say what is going to be measured, and about how long it takes."""
        if not self.silent:
            self.out.write(f"{what}: about {_duration(seconds)}.\n")
            self.out.flush()

    def bar(self, total: int) -> Any:
        """A live line of so many steps, to be used in a ``with``; an empty one where none is wanted."""
        return _Bar(total=total, bar_format=BAR, file=self.out, dynamic_ncols=True, disable=not self.live)


class _Bar(tqdm):
    monitor_interval = 0  # no thread: it is moved on at every step


def _duration(seconds: float) -> str:
    return f"{max(2, round(seconds))} seconds" if seconds < 90 else f"{round(seconds / 60)} minutes"
