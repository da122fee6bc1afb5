"""`Owner`: which process holds something, told so that others can see whether it still runs."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from time import localtime, strftime, time
from urllib.parse import quote, unquote
from uuid import uuid4

import attrs
from attrs import evolve, frozen


@frozen
class Owner:
    """A process that claims something, as the text of a file's name."""

    host: str  # the name of its machine
    machine: str  # the beginning of the machine's id, where it has one, since names of machines are given twice
    boot: str  # the beginning of the id of the machine's present start, where it has one
    space: str  # its namespace of process numbers, where there are any: containers may share the name of their machine
    process: int = attrs.field(converter=int)  # its number
    # when it was started, in the system's own words; a number that was given to another process since then is told
    # apart by it
    started: str
    since: int = attrs.field(converter=int)  # when it made the claim, in seconds since 1970
    claim: str  # a word for this claim alone

    @classmethod
    def claiming(cls) -> "Owner":
        """This process, with a new claim."""
        return cls(
            host=socket.gethostname()[:64],
            machine=_beginning("/etc/machine-id"),
            boot=_beginning("/proc/sys/kernel/random/boot_id"),
            space=_space(),
            process=os.getpid(),
            started=_started(os.getpid()),
            since=int(time()),
            claim=uuid4().hex[:12],
        )

    @classmethod
    def read(cls, text: str) -> "Owner | None":
        """The owner whose `text` this is; None for any other text."""
        facts = dict(part.partition("=")[::2] for part in text.split(","))
        try:
            owner = cls(**{name: unquote(value) for name, value in facts.items()})
        except (TypeError, ValueError):
            return None
        known = owner.process > 0 and 0 <= owner.since < 10**11 and owner.host.isprintable()
        return owner if known else None

    @property
    def text(self) -> str:
        """All attributes as text that can be the name of a file."""
        return ",".join(f"{name}={quote(str(value), safe='')}" for name, value in attrs.asdict(self).items())

    @property
    def ended(self) -> bool | None:
        """Whether its process has ended; None where that cannot be seen from here."""
        own = Owner.claiming()
        if (self.host, self.machine) != (own.host, own.machine):
            return None
        if self.boot != own.boot:
            return True if self.machine else None  # else it may be another machine of that name
        return _ended(self.process, self.started) if self.space == own.space else None

    def __str__(self) -> str:
        here = evolve(Owner.claiming(), since=self.since, claim=self.claim) == self
        since = strftime("%Y-%m-%d %H:%M", localtime(self.since))
        return f"process {self.process}{' (this one)' if here else ''} on {self.host} since {since}"


def _ended(process: int, started: str) -> bool | None:
    if sys.platform == "win32":  # there is no signal 0 there: to send it would end the process
        return None
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # it runs under another user, who may hide when it was started
    now = _started(process)
    return now != "" and now != started


def _started(process: int) -> str:
    """When a process was started, in the system's words; "ended" if it only waits to be buried, "" if nobody tells."""
    try:
        # the name of the program comes before, in brackets, and may hold any character
        state, *facts = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "ended" if state in "ZX" else facts[18]
    except OSError:
        return "" if sys.platform == "linux" else _told_by_ps(process)


def _told_by_ps(process: int) -> str:
    try:
        asked = ["ps", "-o", "lstart=", "-p", str(process)]
        return " ".join(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split())
    except OSError:
        return ""


def _beginning(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()[:8]
    except (OSError, ValueError):
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""
