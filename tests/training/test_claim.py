from pathlib import Path

import pytest

from qprune.errors import CheckpointError
from qprune.spec import read_spec, spec_to_toml
from qprune.training import ranks
from qprune.training.claim import check_run, claim_run
from qprune.training.lock import Lock
from qprune.training.run import Run

SPEC = read_spec("digits/baseline")


def test_a_run_is_held_while_it_is_trained(tmp_path: Path) -> None:
    with claim_run(tmp_path, SPEC, resume=False, overwrite=False) as claim:
        assert claim.run == Run(tmp_path / SPEC.name)
        assert claim.run.spec.read_text() == spec_to_toml(SPEC)
        for resume, overwrite in ((False, False), (True, False), (False, True)):
            for refuse in (check_run, lambda *asked: claim_run(*asked).__enter__()):
                with pytest.raises(CheckpointError, match=r"is being trained: process \d+ \(this one\)"):
                    refuse(tmp_path, SPEC, resume, overwrite)
        assert claim.held
    with claim_run(tmp_path, SPEC, resume=True, overwrite=False) as claim:
        assert claim.held


def test_a_run_is_let_go_when_training_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim_run(tmp_path, SPEC, resume=False, overwrite=False):
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / SPEC.name).iterdir()] == ["spec.toml"]


def test_a_run_that_is_refused_is_let_go(tmp_path: Path) -> None:
    Run.create(tmp_path, SPEC.name, spec_to_toml(SPEC))
    with pytest.raises(CheckpointError, match="not finished"):
        claim_run(tmp_path, SPEC, resume=False, overwrite=False).__enter__()
    Lock.check_free(tmp_path / SPEC.name)


def test_of_several_processes_the_one_that_writes_holds_the_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ranks, "is_writer", lambda: False)
    check_run(tmp_path, SPEC, resume=False, overwrite=False)
    with claim_run(tmp_path, SPEC, resume=False, overwrite=False) as claim:
        assert claim.lock is None
        assert claim.held
    assert not (tmp_path / SPEC.name).exists()
