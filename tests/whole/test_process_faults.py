"""The table about processes in docs/reference/processes.md: each row is a test, each test a row."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import forked
import pytest
import torch
from attrs import evolve

import qprune
from qprune.errors import CheckpointError
from qprune.spec import read_spec, spec_to_toml
from qprune.training import Run, load_checkpoint, save_checkpoint
from qprune.training.lock import Lock
from qprune.training.owner import Owner

SCRIPT = Path(__file__).with_name("held.py")
PAGE = Path(__file__).parents[2] / "docs/reference/processes.md"
SMALL = ["data.train_images=90", "train.batch=12", "train.length=13it", "train.validate_every=5it"]
GO_ON = r"Go on from the last checkpoint with --resume\."


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    file = tmp_path_factory.mktemp("specs") / "run.toml"
    file.write_text(spec_to_toml(evolve(read_spec("digits/baseline", SMALL), name="run")))
    return file


@pytest.fixture
def start(spec, tmp_path):
    """Starts processes that train, and ends those that are left."""
    started = []

    def begin(*arguments, **variables):
        started.append(forked.Process(SCRIPT, spec, tmp_path, *arguments, environment=variables))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@pytest.fixture
def start_together(start):
    """Starts processes that train together."""

    def begin(size, acts, *arguments, **variables):
        meetings = forked.meeting(size)
        return [start(*arguments, ACTS=str(acts), **meeting, **variables) for meeting in meetings]

    return begin


def wait_for(runs, count=1):
    end = time.monotonic() + 120
    while len(list(runs.glob("here-*"))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def told(process, code=1):
    """The sentence that a process ended with."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    sentences = [line.removeprefix("told: ") for line in errors.splitlines() if line.startswith("told: ")]
    return sentences[0] if sentences else ""


def fit(spec, runs, **options):
    return qprune.fit(spec, runs=runs, device="cpu", verbose=0, **options)


def refusal(spec, runs, **options):
    with pytest.raises(CheckpointError) as error:
        fit(spec, runs, **options)
    return str(error.value)


def held_by(process):
    return (
        rf"/run is being trained: process {process} .*on \S+ since [\d :-]+\. Wait for it or end it, or use a new --na"
    )


def test_second_training_of_a_run(spec, start, tmp_path):
    first = start(3, "waits")
    wait_for(tmp_path)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        assert re.search(held_by(first.pid), refusal(spec, tmp_path, **options))
    (tmp_path / "go").touch()
    assert told(first, 0) == ""
    assert not (tmp_path / "run/.lock").exists()
    assert fit(spec, tmp_path, resume=True).history["step"] == [5, 10, 13]


def test_two_trainings_that_begin_at_the_same_instant(start, tmp_path):
    both = [start("begin", "waits") for _ in range(2)]
    wait_for(tmp_path, 2)
    (tmp_path / "go").touch()
    said = {process.pid: process.communicate(timeout=120)[1] for process in both}
    assert sorted(process.returncode for process in both) == [0, 1], said
    ((loser, sentence),) = ((process, text) for process, text in said.items() if "told: " in text)
    (winner,) = said.keys() - {loser}
    assert re.search(held_by(winner) + "|/run holds a", sentence)
    assert Run(tmp_path / "run").finished


def test_training_that_was_killed(spec, start, tmp_path):
    assert told(start(7, "SIGKILL"), -signal.SIGKILL) == ""
    assert len(list((tmp_path / "run/.lock").iterdir())) == 1
    assert "holds a run that was not finished" in refusal(spec, tmp_path)
    fit(spec, tmp_path, resume=True)
    assert not (tmp_path / "run/.lock").exists()
    assert load_checkpoint(tmp_path / "run/model.pt")["step"] in (5, 10, 13)


def test_lock_of_another_machine(spec, tmp_path):
    other = evolve(Owner.claiming(), host="elsewhere", machine="01234567")
    (tmp_path / "run/.lock").mkdir(parents=True)
    (tmp_path / "run/.lock" / other.text).touch()
    assert re.search(
        rf"/run is held by a training: process {os.getpid()} on elsewhere since .*\. Whether that still runs cannot be "
        r"seen from here\. If it has ended, remove \S+/run/\.lock and try again;",
        refusal(spec, tmp_path),
    )
    shutil.rmtree(tmp_path / "run/.lock")
    fit(spec, tmp_path)


def test_run_opened_while_it_is_trained(spec, start, tmp_path):
    fit(spec, tmp_path)
    again = start("begin", "waits", "resume")
    wait_for(tmp_path)
    lock = tmp_path / "run/.lock"
    lock.mkdir()
    (lock / Owner.claiming().text).touch()
    assert qprune.evaluate("run", runs=tmp_path, device="cpu")["accuracy"] > 0
    assert isinstance(qprune.load("run", runs=tmp_path), torch.nn.Module)
    assert qprune.summary("run", runs=tmp_path).to_dict()
    (tmp_path / "go").touch()
    assert re.search(held_by(os.getpid()), told(again))


def test_another_spec_than_the_run_was_begun_with(spec, tmp_path):
    fit(spec, tmp_path)
    assert re.search(
        r"/run was begun with another spec: train\.batch was 12 and is 24 now\. Resume it with the spec it was begun "
        r"with \(\S+/run/spec\.toml\), or use --overwrite or a new --name\.",
        refusal(spec, tmp_path, resume=True, overrides=["train.batch=24"]),
    )
    fit(spec, tmp_path, resume=True, overrides=["train.checkpoint_every='2it'", "data.prefetch=3"])


def test_checkpoint_that_was_written_with_another_spec(spec, tmp_path):
    run = Run(fit(spec, tmp_path).run)
    other = load_checkpoint(run.last)
    save_checkpoint(run.last, other | {"spec": other["spec"].replace("batch = 12", "batch = 24")})
    assert re.search(
        r"/last\.pt was written with another spec: train\.batch was 24 and is 12 now\. Resume",
        refusal(spec, tmp_path, resume=True),
    )


def test_folder_removed_while_it_is_trained(start, tmp_path):
    process = start(7, "waits")
    wait_for(tmp_path)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "go").touch()
    assert re.search(
        r"/run was removed, replaced or taken by another training while it was trained\. All up to step 7 is kept in "
        r"\S+/run-kept-1\. Move that to \S+/run, or elsewhere, and go on with --resume\.",
        told(process),
    )
    assert load_checkpoint(tmp_path / "run-kept-1/last.pt")["step"] == 7


@pytest.mark.slow
def test_folder_removed_while_several_processes_train_it(start_together, tmp_path):
    processes = start_together(2, 1, 7, "waits")
    wait_for(tmp_path)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "go").touch()
    sentences = [told(process) for process in processes]
    kept = rf"/run was removed, .*{tmp_path}/run-kept-1\. Move that to"
    assert re.search(kept, sentences[0])
    assert re.search(kept, sentences[1]) or "Process 0, or torchrun, which keeps" in sentences[1]
    checkpoint = load_checkpoint(tmp_path / "run-kept-1/last.pt")
    assert checkpoint["step"] in (7, 8)
    assert len(checkpoint["ranks"]) == 2


@pytest.mark.slow
def test_link_in_place_of_the_folder(start, tmp_path):
    process = start(7, "waits")
    wait_for(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "gone")
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "go").touch()
    assert "/run-kept-1. Move that to" in told(process)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert load_checkpoint(tmp_path / "run-kept-1/last.pt")["step"] == 7


def test_loader_process_that_is_killed(start, spec, tmp_path):
    sentence = told(start(7, "loader SIGKILL", "data.workers=1"))
    assert re.fullmatch(
        r"A process that loads data is gone \(killed by signal: Killed\), and its batch with it\. Where memory runs "
        r"out .* Everything up to the last step is saved; go on with --resume\.",
        sentence,
    )
    assert load_checkpoint(tmp_path / "run/last.pt")["step"] == 7
    fit(spec, tmp_path, resume=True)


@pytest.mark.slow
def test_second_training_with_several_processes(start_together, tmp_path):
    lock = Lock.take(tmp_path / "run")
    first, second = start_together(2, None, 3, "waits")
    assert re.search(held_by(os.getpid()), told(first))
    failed = "^Process 0 failed, which ends all of them: .*" + held_by(os.getpid())
    assert re.search(f"{failed}|^Process 0, or torchrun, which keeps the processes in touch, is gone", told(second))
    assert lock.held


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_process_that_hangs(start_together, tmp_path, size):
    processes = start_together(size, size - 1, 3, "SIGSTOP", QPRUNE_RANK_TIMEOUT="3")
    for process in processes[:-1]:
        assert re.search(
            rf"^Process {size - 1} did not answer for 3 s, which ends all of them: it hangs, was stopped, or is far "
            rf"behind the others\. {GO_ON} Where such waits are right, set QPRUNE_RANK_TIMEOUT to more seconds\.",
            told(process),
        )
    assert not (tmp_path / "run/.lock").exists()
    os.kill(processes[-1].pid, signal.SIGCONT)
    assert re.search(rf"^Process {size - 1} did not answer|^Process 0, or torchrun, which keeps", told(processes[-1]))


@pytest.mark.slow
def test_process_that_hangs_and_keeps_the_others_in_touch(start_together, spec, tmp_path):
    first, second = start_together(2, 0, 3, "SIGSTOP", QPRUNE_RANK_TIMEOUT="3")
    assert re.search(
        rf"^Process 0, or torchrun, which keeps the processes in touch, is gone or does not answer, .* {GO_ON}",
        told(second),
    )
    assert re.search(held_by(first.pid), refusal(spec, tmp_path, resume=True))
    first.kill()
    first.wait()
    fit(spec, tmp_path, resume=True)


def test_process_that_is_killed_among_several(start_together):
    first, second = start_together(2, 1, 3, "SIGKILL")
    assert told(second, -signal.SIGKILL) == ""
    assert re.search(
        rf"^Process 1 is gone without a word \(killed for .*, which ends all of them\. {GO_ON}", told(first)
    )


def test_table_in_the_docs_lists_these_faults():
    section = PAGE.read_text(encoding="utf-8")
    rows = {re.sub(r"\W+", "_", row) for row in re.findall(r"^\| ([^|-][^|]*) \|", section, re.MULTILINE)} - {"fault"}
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert rows == tests - {"table_in_the_docs_lists_these_faults"}
