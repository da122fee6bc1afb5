"""Claiming the folder of a run: one process does, the others wait for it."""

from pathlib import Path

from qprune.spec import Spec, spec_to_toml
from qprune.training import ranks
from qprune.training.run import Run


def check_run(root: Path, spec: Spec, resume: bool, overwrite: bool) -> None:
    """Refuse what `claim_run` would refuse, without making anything.

    Raises:
        CheckpointError: as `Run.create`.

    Example:
        >>> check_run(Path("runs"), spec, resume=False, overwrite=False)
    """
    if ranks.is_writer() and Run(root / spec.name).exists and not overwrite:
        Run.create(root, spec.name, spec_to_toml(spec), resume=resume)


def claim_run(root: Path, spec: Spec, resume: bool, overwrite: bool) -> Run:
    """Make the folder of a run, or take up one that is there; see `Run.create`. Without a checkpoint it begins anew.

    Raises:
        CheckpointError: as `Run.create`.

    Example:
        >>> run = claim_run(Path("runs"), spec, resume=False, overwrite=False)
    """
    if ranks.is_writer():
        begun = Run(root / spec.name).exists
        run = Run.create(root, spec.name, spec_to_toml(spec), resume=resume, overwrite=overwrite)
        if begun and resume:
            run.drop_unsaved()
    ranks.wait_for_all()
    return Run(root / spec.name)
