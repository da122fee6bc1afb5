"""Run by test_process_faults.py: trains, and at one moment does something to itself or waits.

python held.py SPEC RUNS MOMENT WHAT [OPTION ...]

MOMENT is "begin", or a number of steps; of several processes the one acts whose number is in ACTS. WHAT is
"waits", until there is a file RUNS/go, having made RUNS/here-<process>; or a signal for itself; or "loader" and a
signal for its loader process.
OPTIONs are "resume" and what replaces a value of the spec.
"""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import qprune
from qprune.training import Callback


def act(runs: Path, what: str) -> None:
    if what == "waits":
        (runs / f"here-{os.getpid()}").touch()
        while not (runs / "go").exists():
            time.sleep(0.01)
    elif what.startswith("loader "):
        loader = multiprocessing.active_children()[0]
        os.kill(loader.pid, signal.Signals[what.removeprefix("loader ")])
        time.sleep(0.5)  # asked whether it is alive, it would be buried before torch looks
    else:
        os.kill(os.getpid(), signal.Signals[what])


class At(Callback):
    def __init__(self, step: int, *action: object) -> None:
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs):
        if self.trainer.step == self.step:
            act(*self.action)


if __name__ == "__main__":
    spec, runs, moment, what, *options = sys.argv[1:]
    acts = os.environ.get("RANK") == os.environ.get("ACTS")
    callbacks = [At(int(moment), Path(runs), what)] if acts and moment != "begin" else []
    if acts and moment == "begin":
        act(Path(runs), what)
    chosen = {"resume": "resume" in options, "overrides": [option for option in options if "=" in option]}
    try:
        qprune.fit(Path(spec), runs=runs, device="cpu", verbose=0, callbacks=callbacks, **chosen)
    except qprune.QpruneError as error:
        sys.exit(f"told: {error}")
