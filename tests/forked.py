"""Programs in processes of their own that start at once: forked from one that has imported what all of them import.

``python FILE`` and ``python -m MODULE`` take four seconds to import torch and what comes with it, and the tests start
a hundred of them. What is forked behaves as what is started does, but for how it was imported; tests of imports and of
launchers start the real thing.
"""

import atexit
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "torch._dynamo", "torch.distributed", "torch.utils.tensorboard", "torchmetrics", "torchvision.transforms.v2",
    "qprune.cli", "qprune.api", "qprune.training", "qprune.zoo", "qprune.data", "qprune.tasks",
)  # fmt: skip


class Process:
    """A program that was forked; what it can do is a part of ``subprocess.Popen``.

    Args:
        arguments: as they stand behind ``python``: a file, ``-m`` and a module, or ``-c`` and code, and what follows.
        environment: variables beside those of this process.
        folder: in which it runs.
        session: whether it begins a session, and so a group of processes.
    """

    def __init__(self, *arguments, environment=(), folder=".", session=False):
        self.returncode = None
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 it writes to them as long as it runs
        self._status, theirs = socket.socketpair()
        order = {
            "arguments": [str(each) for each in arguments],
            "environment": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | dict(environment),
            "folder": str(Path(folder).absolute()),
            "session": session,
        }
        with theirs:
            handed = [*(file.fileno() for file in self._files), theirs.fileno()]
            socket.send_fds(_first(), [json.dumps(order).encode()], handed)
        self.pid = int.from_bytes(self._status.recv(8), signed=True)

    def poll(self):
        return self._look(0)

    def wait(self, timeout=None):
        if self._look(timeout) is None:
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self._told

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _look(self, timeout):
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(self._status.recv(8), signed=True))
            self._told = tuple(map(_read, self._files))
            self._status.close()
        return self.returncode


def _read(file):
    with file:
        file.seek(0)
        return file.read()


def run(*arguments, timeout=300, **options):
    """The finished program, as ``subprocess.run`` gives it."""
    process = Process(*arguments, **options)
    try:
        told = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, *told)


def together(size, *arguments):
    """A program in so many processes that train one network."""
    return [Process(*arguments, environment=variables) for variables in meeting(size)]


def meeting(size):
    """The variables by which torchrun would tell each of so many processes who it is and where they meet."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    meet = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return [meet | {"RANK": str(number), "LOCAL_RANK": str(number)} for number in range(size)]


@cache
def _first():
    """The way to the process that all others are forked from; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
    atexit.register(_end, ours, process)
    return ours


def _end(orders, process):
    orders.close()
    process.wait()


# in the other process


def serve(orders):
    """Fork a program for each order; what is forked returns with its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who keeps a program is not waited for
    while True:
        message, handed, _, _ = socket.recv_fds(orders, 1 << 20, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            orders.close()
            return json.loads(message), handed
        for number in handed:
            os.close(number)


def keep(status):
    """Fork once more, and tell who it is and how it ends; only the program returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program = os.fork()
    if program == 0:
        os.close(status)
        return
    os.write(status, program.to_bytes(8, signed=True))
    os.write(status, os.waitpid(program, 0)[1].to_bytes(8, signed=True))
    os._exit(0)


def become(order, out, err):
    """Take the program's place: its output, variables, folder and arguments."""
    if order["session"]:
        os.setsid()
    for number, place in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(number, place)
        os.close(number)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    random.seed()


if __name__ == "__main__":
    for name in IMPORTED:
        __import__(name)
    gc.freeze()  # what is imported is not looked at again, and so not copied
    order, (out, err, status) = serve(socket.socket(fileno=int(sys.argv[1])))
    keep(status)
    become(order, out, err)
    first, *rest = order["arguments"]
    if first == "-m":
        sys.argv = rest
        sys.path[0] = ""
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = order["arguments"]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")
