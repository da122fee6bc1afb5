"""`Lock`: at most one training holds a run's folder."""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from time import sleep, time

from attrs import frozen

from qprune.errors import CheckpointError
from qprune.training.owner import Owner
from qprune.training.writing import ABANDONED, explaining_write_errors

log = logging.getLogger(__name__)

NAME = ".lock"


@frozen
class Lock:
    """A claim on a run's folder, told by the folder ``.lock`` in it, with one empty file whose name says who holds it.

    A lock is taken by moving a folder with that file into place, and taken over from a process that has ended by giving
    that file another name. Both are one move of a name that only one process can make, so that of several that
    start at the same instant one wins, also on network folders and with nothing left to do for a process that is
    killed. (A file that is made exclusively cannot be taken over without a second lock; the kernel's file locks are
    inherited by loader processes, which outlive a killed training, and do not reach other machines everywhere.)
    """

    folder: Path  # the run's
    owner: Owner  # who holds it: this process

    @classmethod
    def take(cls, folder: Path) -> "Lock":
        """Take the lock of a folder; the folder is made if it is not there."""
        lock = cls(folder, Owner.claiming())
        with explaining_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            for _ in range(100):
                if lock._put() or lock._take_over():
                    return lock
                sleep(0.01)  # it is just being released
        raise CheckpointError(
            f"{folder / NAME} is not a lock of qprune's. Remove it if no training is at work in {folder}."
        )

    @staticmethod
    def check_free(folder: Path) -> None:
        """Make sure that no training holds a folder."""
        owner = _owner(folder)
        if owner is not None and not owner.ended:
            raise CheckpointError(_refusal(folder, owner))

    @property
    def held(self) -> bool:
        """Whether the folder of that name is still the one that was locked, and the lock still there."""
        try:
            self._entry.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass  # a disturbance of the network is no reason to end a training
        return True

    def release(self) -> None:
        """Release the lock, if this is the process that took it and not one that was forked from it."""
        if os.getpid() == self.owner.process:
            with suppress(OSError):
                self._entry.unlink()
                self._entry.parent.rmdir()

    @property
    def _entry(self) -> Path:
        return self.folder / NAME / self.owner.text

    def _put(self) -> bool:
        """Move a lock of ours into its place, if there is none."""
        part, place = self.folder / f"{NAME}.{self.owner.claim}.part", self.folder / NAME
        if _owner(self.folder) or place.is_symlink():
            return False
        with suppress(OSError):
            place.rmdir()  # of a process that was killed while it released it; not all systems move onto empty folders
        part.mkdir()
        try:
            (part / self.owner.text).touch()
            part.rename(place)
        except OSError:
            if not place.exists():
                raise
            return False
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return True

    def _take_over(self) -> bool:
        """Give the lock of a process that has ended our name."""
        owner = _owner(self.folder)
        if owner is None:
            return False
        if owner == self.owner:
            return True  # a network folder may have lost the answer to the first try
        if not owner.ended:
            raise CheckpointError(_refusal(self.folder, owner))
        try:
            (self.folder / NAME / owner.text).rename(self._entry)
        except FileNotFoundError:
            return False  # another process was faster
        log.info("%s was held by %s, which has ended; it is taken over.", self.folder, owner)
        return True


def _owner(folder: Path) -> Owner | None:
    place = folder / NAME
    try:
        names = [] if place.is_symlink() else sorted(os.listdir(place))
    except OSError:
        return None
    return next((owner for name in names if (owner := Owner.read(name))), None)


def _refusal(folder: Path, owner: Owner) -> str:
    if owner.ended is None:
        return (
            f"{folder} is held by a training: {owner}. Whether that still runs cannot be seen from here. If it has "
            f"ended, remove {folder / NAME} and try again; else wait for it, or use a new --name."
        )
    return f"{folder} is being trained: {owner}. Wait for it or end it, or use a new --name."


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed while they took the lock."""
    for part in folder.glob(f"{NAME}.*.part"):
        with suppress(OSError):
            if time() - part.lstat().st_mtime >= ABANDONED:
                shutil.rmtree(part)
