"""What the processes of a loader do about SIGTERM."""

import os
import signal
from multiprocessing import parent_process
from threading import Thread


def heed_only_the_parent(worker: int) -> None:
    """In a loader's process: SIGTERM ends it only if the training process sends it.

    Launchers and schedulers send SIGTERM to every process of a training. If loaders died of it, torch would raise an
    error wherever the training process is; this way that finishes its step, saves, and then ends its loaders. Without
    ``sigwaitinfo`` (macOS, Windows) they die of it.

    Args:
        worker: its number, which a loader hands over.

    Example:
        >>> loader = DataLoader(dataset, num_workers=2, worker_init_fn=heed_only_the_parent)
    """
    parent = parent_process()
    if hasattr(signal, "sigwaitinfo") and parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a handler would not be told who sent it
        Thread(target=_wait_for, args=(parent.pid,), daemon=True).start()


def _wait_for(sender: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)
