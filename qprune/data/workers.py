"""Loader processes: how they handle SIGTERM, and the error that a training raises when one is killed."""

import multiprocessing
import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from threading import Thread, current_thread, main_thread
from typing import Any

from qprune.errors import DataError

# torch raises a RuntimeError of these words; it has no class for it
_LOST = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) "
    r"(?:is (killed by signal: [^.]+)|exited unexpectedly(?: with (exit code \d+))?)"
)
_END = object()


class LoaderError(DataError):
    """A loader process that was killed, or ended by itself.

    Args:
        how: what is known of its end.

    Attributes:
        saved: whether a checkpoint of the training's last step was written; None where nothing is trained. Set by who
            knows.

    Example:
        >>> str(LoaderError("killed by signal: Killed"))
        'A process that loads data is gone (killed by signal: Killed), and its batch with it. Where ...'
    """

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how
        self.saved: bool | None = None

    def __str__(self) -> str:
        reason = {
            "killed by signal: Killed": "Where memory runs out the system kills processes: use fewer data.workers, "
            "a smaller data.prefetch or a smaller train.batch.",
            "killed by signal: Bus error": "Most likely shared memory (/dev/shm) ran out: give it more room, or use "
            "fewer data.workers or a smaller data.prefetch.",
        }.get(self.how, "With data.workers = 0 the reason is seen.")
        way_out = {
            None: "",
            True: " Everything up to the last step is saved; go on with --resume.",
            False: " The last step was not saved; go on from the last checkpoint with --resume.",
        }[self.saved]
        return f"A process that loads data is gone ({self.how}), and its batch with it. {reason}{way_out}"


@contextmanager
def explaining_lost_loaders() -> Iterator[None]:
    """Turn torch's error about a loader process that is gone into one sentence.

    Raises:
        LoaderError: in place of torch's RuntimeError.

    Example:
        >>> with explaining_lost_loaders():
        ...     batches = list(loader)
    """
    try:
        yield
    except RuntimeError as error:
        found = [match for told in (error, error.__cause__) if (match := _LOST.search(str(told)))]
        if not found:
            raise
        how = found[-1]  # the cause tells more
        raise LoaderError(how[1] or how[2] or "it ended by itself") from error


class LoaderWatch:
    """Raises the error of a loader process that ended where the next batch is awaited, and nowhere else.

    torch raises an error as soon as the system tells of it, wherever the training process is at that moment: in the
    middle of a step, of a callback, of a save. This way the step ends first, and can be saved.

    Example:
        >>> watch = LoaderWatch()
        >>> with watch.installed():
        ...     for batch in watch.batches(loader):
        ...         step(batch)
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._waiting = self._came = self._telling = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let `batches` raise the error inside the ``with`` block; afterwards torch's handler is back."""
        self._came = False
        try:
            yield
        finally:
            if self._before is not None and signal.getsignal(signal.SIGCHLD) == self._note:
                signal.signal(signal.SIGCHLD, self._before)
            self._before = None

    def batches(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass batches on.

        Raises:
            LoaderError: if a loader process is gone.
        """
        waiting = iter(batches)
        while (batch := self._next(waiting)) is not _END:
            yield batch

    def _next(self, waiting: Iterator[Any]) -> Any:
        self._install()
        self._waiting = True
        try:
            with explaining_lost_loaders():
                if self._came:
                    self._tell()
                return next(waiting, _END)
        finally:
            self._waiting = False

    def _install(self) -> None:
        """Replace torch's signal handler, which is set when a loader begins."""
        if current_thread() is main_thread() and hasattr(signal, "SIGCHLD"):
            before = signal.getsignal(signal.SIGCHLD)
            if callable(before) and before != self._note:
                self._before = before
                signal.signal(signal.SIGCHLD, self._note)

    def _note(self, number: int, _: Any) -> None:
        self._came = True
        if self._waiting:
            self._tell()

    def _tell(self) -> None:
        self._came = False
        if self._before is None or self._telling:
            return  # a handler that was set after this one calls it again
        self._telling = True
        try:
            self._before(signal.SIGCHLD, None)
        finally:
            self._telling = False


def choose_workers(in_memory: bool) -> int:
    """How many processes load data, where nobody says: none for data in memory, for files one fewer than cores.

    At most 8, and of the processes of one training (torchrun) each counts its share of the machine's cores. None where
    the system starts processes anew (macOS, Windows), since a script must be written for that.
    """
    begins = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if in_memory or begins != "fork":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sharing = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(0, min(cores // (int(sharing) if sharing.isdecimal() and int(sharing) else 1) - 1, 8))


def heed_only_the_parent(worker: int) -> None:
    """In a loader's process: SIGTERM ends it only if the training process sends it.

    Launchers and schedulers send SIGTERM to every process of a training. If loaders died of it, torch would raise an
    error wherever the training process is; this way that finishes its step, saves, and then ends its loaders. Without
    ``sigwaitinfo`` (macOS, Windows) they die of it.
    """
    parent = parent_process()
    if hasattr(signal, "sigwaitinfo") and parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a handler would not be told who sent it
        Thread(target=_wait_for, args=(parent.pid,), daemon=True).start()


def _wait_for(sender: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)
