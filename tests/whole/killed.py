"""Run by test_kill.py: goes on with a run, and sends itself SIGNAL when EVENT is about to happen the COUNT-th time.

python killed.py SPEC RUNS WORKERS SIGNAL EVENT COUNT

EVENT is a hook of `Callback`; "validation", a forward pass in eval mode; "write", anything that is done to a file of
the run; "a.pt" or "a.pt>b.pt", what is done to a file of that name, or to b.pt once something was done to a.pt; or
"ms", then COUNT is milliseconds of training.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import qprune
from qprune.training import Callback
from qprune.training.callbacks import HOOKS

WRITES = ("os.link", "os.remove", "os.rename", "os.truncate")


class Countdown:
    """Sends this process a signal at the last of so many events."""

    def __init__(self, number: signal.Signals, count: int) -> None:
        self.number, self.left, self.process = number, count, os.getpid()

    def __call__(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.send()

    def send(self) -> None:
        os.kill(self.process, self.number)


class Watch(Callback):
    """Counts the calls of one hook, or forward passes in eval mode, or milliseconds."""

    def __init__(self, event: str, countdown: Countdown) -> None:
        self.event, self.countdown = event, countdown
        if event in HOOKS:
            setattr(self, event, countdown)
        elif event in ("validation", "ms"):
            self.on_train_begin = self._start  # type: ignore[method-assign]

    def _start(self, logs: Any) -> None:
        if self.event == "ms":
            threading.Thread(target=self._wait, daemon=True).start()
        else:
            self.trainer.averaged_net.register_forward_pre_hook(self._forward)

    def _wait(self) -> None:
        time.sleep(self.countdown.left / 1000)
        self.countdown.send()

    def _forward(self, net: Any, inputs: Any) -> None:
        if not net.training:
            self.countdown()


def watch_files(runs: str, event: str, countdown: Countdown) -> None:
    """Count what is about to be done to files below a folder: to all of them, or to those of a name."""
    names = [""] if event == "write" else event.split(">")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        written = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not written or not str(arguments[0]).startswith(runs):
            return
        if names[-1] in Path(arguments[0]).name and len(names) == 1:
            countdown()
        elif names[0] in Path(arguments[0]).name:
            del names[:-1]

    sys.addaudithook(hook)


if __name__ == "__main__":
    spec, runs, workers, number, event, count = sys.argv[1:]
    countdown = Countdown(signal.Signals[number], int(count))
    if event == "write" or "." in event:
        watch_files(runs, event, countdown)
    options = {"overrides": [f"data.workers={workers}"], "callbacks": [Watch(event, countdown)]}
    qprune.fit(Path(spec), runs=runs, resume=True, verbose=0, device="cpu", **options)
