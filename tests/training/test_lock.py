import multiprocessing
import os
import re
import signal
import threading
from pathlib import Path

import pytest
from attrs import evolve

from qprune.errors import CheckpointError
from qprune.training.lock import Lock
from qprune.training.owner import Owner

FORK = multiprocessing.get_context("fork")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        Lock.take(folder)
    return str(error.value)


def leave(folder: Path, **change: object) -> Owner:
    """The lock of a process that has ended, or of whatever `change` says."""
    owner = evolve(Owner.claiming(), **({"started": "1"} | change))
    (folder / ".lock").mkdir(parents=True)
    (folder / ".lock" / owner.text).touch()
    return owner


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_lock_is_held_until_it_is_released(tmp_path):
    lock = Lock.take(tmp_path / "digits" / "run")
    assert lock.held
    assert names(lock.folder) == [".lock"]
    lock.release()
    assert not lock.held
    assert names(lock.folder) == []
    Lock.check_free(lock.folder)


def test_a_folder_that_this_process_trains_is_refused_also_to_another_thread(tmp_path):
    Lock.take(tmp_path)
    told = []
    thread = threading.Thread(target=lambda: told.append(refusal(tmp_path)))
    thread.start()
    thread.join()
    assert re.fullmatch(
        rf"{tmp_path} is being trained: process {os.getpid()} \(this one\) on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d\. "
        r"Wait for it or end it, or use a new --name\.",
        told[0],
    )
    with pytest.raises(CheckpointError, match="is being trained"):
        Lock.check_free(tmp_path)


def test_a_process_that_was_forked_neither_releases_nor_gets_the_lock(tmp_path):
    lock, ours = Lock.take(tmp_path), FORK.Queue()

    def forked():
        lock.release()
        ours.put(refusal(tmp_path))

    process = FORK.Process(target=forked)
    process.start()
    assert f"process {os.getpid()} on " in ours.get(timeout=30)
    process.join()
    assert lock.held


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path):
    leave(tmp_path)
    Lock.check_free(tmp_path)
    lock = Lock.take(tmp_path)
    assert lock.held
    assert names(tmp_path / ".lock") == [lock.owner.text]


def test_what_a_process_left_that_was_killed_while_it_released_is_no_lock(tmp_path):
    (tmp_path / ".lock").mkdir()
    assert Lock.take(tmp_path).held


def test_what_a_process_left_that_was_killed_while_it_took_the_lock_is_removed_an_hour_later(tmp_path):
    for name in (".lock.old.part", ".lock.new.part"):
        (tmp_path / name / "entry").mkdir(parents=True)
    os.utime(tmp_path / ".lock.old.part", (0, 0))
    Lock.take(tmp_path)
    assert names(tmp_path) == [".lock", ".lock.new.part"]


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"space": "7"}])
def test_a_lock_of_another_machine_is_left_and_the_way_out_told(tmp_path, change):
    owner = leave(tmp_path, process=4711, **change)
    assert refusal(tmp_path) == (
        f"{tmp_path} is held by a training: process 4711 on {owner.host} since {str(owner)[-16:]}. Whether that still "
        f"runs cannot be seen from here. If it has ended, remove {tmp_path}/.lock and try again; else wait for it, or "
        "use a new --name."
    )
    assert names(tmp_path / ".lock") == [owner.text]


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.parent), lambda path: (path / "a").mkdir(parents=True)])  # fmt: skip  # noqa: E501
def test_what_is_no_lock_is_left_and_told(tmp_path, make):
    make(tmp_path / ".lock")
    assert refusal(tmp_path) == (
        f"{tmp_path}/.lock is not a lock of qprune's. Remove it if no training is at work in {tmp_path}."
    )
    assert names(tmp_path) == [".lock"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", full)
    assert f"{tmp_path} cannot be written: Read-only file system. " in refusal(tmp_path)
    assert names(tmp_path) == []


def test_a_lock_is_lost_with_its_folder_and_by_its_removal_but_not_by_a_move_that_leaves_a_link(tmp_path):
    lock = Lock.take(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert not lock.held
    (tmp_path / "run").symlink_to(tmp_path / "moved")
    assert lock.held
    (tmp_path / "run").unlink()
    (tmp_path / "run").touch()
    assert not lock.held
    (tmp_path / "run").unlink()
    (tmp_path / "run").mkdir()
    assert not lock.held
    lock.release()  # of nothing


def test_a_disturbance_of_the_network_loses_no_lock(tmp_path, monkeypatch):
    lock = Lock.take(tmp_path)

    def stale(path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(Path, "lstat", stale)
    assert lock.held


def test_a_lock_that_was_released_in_between_is_taken(tmp_path, monkeypatch):
    owner = leave(tmp_path)
    before = Path.rename

    def slower(path, target):
        monkeypatch.setattr(Path, "rename", before)
        (tmp_path / ".lock" / owner.text).unlink()  # another one was faster, and is done
        return before(path, target)

    monkeypatch.setattr(Path, "rename", slower)
    assert Lock.take(tmp_path).held


def contend(folder, barrier, results):
    barrier.wait(30)
    try:
        lock = Lock.take(folder)
    except CheckpointError as error:
        results.put(str(error))
    else:
        results.put(lock.owner.text)
        signal.pause()  # holds it until it is killed, as nothing else ends it


def test_of_processes_that_start_at_the_same_instant_exactly_one_wins(tmp_path):
    for turn in range(12):  # the first takes a lock, each later one takes it over from one that was killed
        barrier, results = FORK.Barrier(5), FORK.Queue()
        processes = [FORK.Process(target=contend, args=(tmp_path, barrier, results)) for _ in range(5)]
        for process in processes:
            process.start()
        said = [results.get(timeout=60) for _ in processes]
        (winner,) = (text for text in said if Owner.read(text))
        assert sum("is being trained: process" in text for text in said) == 4, turn
        assert names(tmp_path / ".lock") == [winner]
        for process in processes:
            process.kill()
            process.join()
