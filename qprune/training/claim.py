"""Claims the folder of a run, so that no other training uses it; one process claims, the others wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from qprune.spec import Spec, spec_to_toml
from qprune.training import ranks
from qprune.training.lock import Lock
from qprune.training.run import Run


@frozen
class Claim:
    """A run's folder that this training holds."""

    run: Run
    lock: Lock | None = None  # its lock, in the process that writes; None in the others

    @property
    def held(self) -> bool:
        """Whether the folder is still the one that was claimed; only the process that writes looks."""
        return self.lock is None or self.lock.held


def check_run(root: Path, spec: Spec, resume: bool, overwrite: bool) -> None:
    """Refuse what `claim_run` would refuse, without making anything.

    Raises:
        CheckpointError: as `claim_run`.

    Example:
        >>> check_run(Path("runs"), spec, resume=False, overwrite=False)
    """
    run = Run(root / spec.name)
    if ranks.is_writer() and run.exists:
        Lock.check_free(run.path)
        if not overwrite:
            Run.create(root, spec.name, spec_to_toml(spec), resume=resume)


@contextmanager
def claim_run(root: Path, spec: Spec, resume: bool, overwrite: bool) -> Iterator[Claim]:
    """Hold the folder of a run, made or taken up; see `Run.create`. Without a checkpoint it begins anew.

    Raises:
        CheckpointError: as `Run.create`; or if another training holds the folder.

    Example:
        >>> with claim_run(Path("runs"), spec, resume=False, overwrite=False) as claim:
        ...     claim.held
        True
    """
    run, lock = Run(root / spec.name), None
    try:
        if ranks.is_writer():
            lock = Lock.take(run.path)
            begun = run.exists
            Run.create(root, spec.name, spec_to_toml(spec), resume=resume, overwrite=overwrite)
            if begun and resume:
                run.drop_unsaved()
        ranks.wait_for_all()
        yield Claim(run, lock)
    finally:
        if lock is not None:
            lock.release()
