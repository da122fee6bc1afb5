"""`Interruption`: Ctrl-C and SIGTERM, which let the present step end first."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

log = logging.getLogger(__name__)

ECHO = 0.5  # seconds; launchers such as `timeout` pass on a Ctrl-C that the terminal has delivered already
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Notes that training is asked to stop: ``came``, and ``preempted`` if by SIGTERM.

    SIGINT is Ctrl-C; a second one raises KeyboardInterrupt. SIGTERM is what schedulers send before they take a machine
    away; further ones change nothing.
    """

    def __init__(self) -> None:
        self.came = self.preempted = False
        self._pressed, self._process = 0.0, os.getpid()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the signals inside the ``with`` block; afterwards the earlier handlers are back."""
        self.came = self.preempted = False
        # Only the main thread may set handlers; elsewhere the signals do not arrive anyway.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        if os.getpid() != self._process:
            self._in_a_loader(number)
        elif number == signal.SIGTERM:
            self._stop("Asked to end (SIGTERM)", preempted=True)
        elif not self.came:
            self._pressed = perf_counter()
            self._stop("Interrupted", preempted=False)
        elif perf_counter() - self._pressed > ECHO:
            raise KeyboardInterrupt  # the second Ctrl-C: do not even finish the step

    def _stop(self, what: str, preempted: bool) -> None:
        if not self.came:
            again = "" if preempted else " Press Ctrl-C again to stop at once."
            log.warning("%s: stopping after this step and saving.%s", what, again)
        self.came = True
        self.preempted |= preempted

    def _in_a_loader(self, number: int) -> None:
        """In a forked loader process: Ctrl-C is the parent's business, which ends its loaders by SIGTERM."""
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
