"""`RollCall`: when processes that train together lose each other, it finds out which one is to blame."""

import re
import time
from collections.abc import Callable
from queue import Empty, Queue
from threading import Thread
from typing import TypeVar

import torch.distributed as dist
from attrs import frozen

from qprune.errors import QpruneError, TrainingError

Answer = TypeVar("Answer")

PATIENCE = 5.0  # seconds in which a process that lost the others looks for the reason
LONGEST = 60.0  # at most so many where one did not answer in time: others may have begun to wait that much later
_FAILURE, _LATE = "failure", "late"
_GO_ON = "Go on from the last checkpoint with --resume."
# what a backend says in the exchange of gradients, which is torch's own; it has no class for it
_LOST = re.compile(r"gloo|nccl|pair closure|connection (?:closed|reset) by peer", re.IGNORECASE)


class LostError(TrainingError):
    """An exchange with the other processes that came to nothing; the error of the backend is its cause."""


@frozen
class RollCall:
    """Notes in a store that all processes share: why a process failed, or that it lost the others."""

    store: dist.Store
    number: int  # of this process
    size: int  # how many train together
    seconds: float  # how long an exchange may take

    def explained(self, error: Exception) -> Exception:
        """The error to end with: that of the process which failed first, or the name of those that do not answer."""
        lost = _is_lost(error)
        try:
            first = _within(max(self._longest, PATIENCE) + PATIENCE, lambda: self._first_failure(error, lost))
        except (RuntimeError, Empty):
            return TrainingError(_UNREACHABLE) if lost else error
        where, _, text = first.partition(" ")
        if where == str(self.number):
            return error
        return TrainingError(f"Process {where} failed, which ends all of them: {text}" if where else text)

    def _first_failure(self, error: Exception, lost: bool) -> str:
        """The first failure: number and error of that process, or a sentence about processes that left no note."""
        ours = isinstance(error, QpruneError)
        if lost:
            self.store.set(f"lost/{self.number}", "")
            if "timed out" in f"{error} {error.__cause__}".lower():
                self.store.set(_LATE, "")
            self._wait()
        own = f" {self._blame()}" if lost else f"{self.number} {'' if ours else f'{type(error).__name__}: '}{error}"
        return self.store.compare_set(_FAILURE, "", own).decode()

    def _wait(self) -> None:
        """Wait until a process has said why it failed, or all have lost the others, or for long enough."""
        began = time.monotonic()
        while not self.store.check([_FAILURE]) and self._missing():
            if time.monotonic() - began >= (self._longest if self.store.check([_LATE]) else PATIENCE):
                return
            time.sleep(0.05)

    @property
    def _longest(self) -> float:
        return min(LONGEST, self.seconds / 2)

    def _missing(self) -> list[int]:
        return [number for number in range(self.size) if not self.store.check([f"lost/{number}"])]

    def _blame(self) -> str:
        missing = self._missing()
        who = f"Process {', '.join(map(str, missing))}"
        if not missing:
            return f"The processes lost each other, though all of them run, which ends all of them. {_GO_ON}"
        if self.store.check([_LATE]):
            return (
                f"{who} did not answer for {self.seconds:g} s, which ends all of them: it hangs, was stopped, or is "
                f"far behind the others. {_GO_ON} Where such waits are right, set QPRUNE_RANK_TIMEOUT to more seconds."
            )
        return f"{who} is gone without a word (killed for its memory?), which ends all of them. {_GO_ON}"


_UNREACHABLE = (
    "Process 0, or torchrun, which keeps the processes in touch, is gone or does not answer, which ends all of them. "
    + _GO_ON
)


def _is_lost(error: Exception) -> bool:
    raw = type(error) is RuntimeError and _LOST.search(str(error)) is not None
    return raw or isinstance(error, LostError | dist.DistError)


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """The answer of a store, whose calls may wait without end; `queue.Empty` if there is none in time."""
    answers: Queue[Answer | Exception] = Queue()

    def work() -> None:
        try:
            answers.put(ask())
        except Exception as error:
            answers.put(error)

    Thread(target=work, daemon=True).start()
    answer = answers.get(timeout=seconds)
    if isinstance(answer, Exception):
        raise answer
    return answer
