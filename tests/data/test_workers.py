import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from qprune.data import LoaderError, LoaderWatch, explaining_lost_loaders, train_loader
from qprune.data.workers import choose_workers


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a thread who sent a signal")
def test_sigterm_ends_a_loader_process_only_if_the_training_process_sends_it():
    batches = iter(train_loader(TensorDataset(torch.arange(5.0)), batch=1, workers=1, prefetch=1))
    seen = [*next(batches)]
    (process,) = batches._workers
    subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
    seen += [value for batch in batches for value in batch]
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert process.is_alive()
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


class Ending(Dataset):
    """Ends the loader's process at one item, in one of three ways."""

    def __init__(self, how: str, at: int = 3) -> None:
        self.how, self.at = how, at

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.at and get_worker_info() is not None:
            if self.how == "exits":
                os._exit(3)
            os.kill(os.getpid(), getattr(signal, self.how))
        return torch.tensor(float(index))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            "SIGKILL",
            r"\(killed by signal: Killed\), .* memory runs out the system kills processes: use fewer data\.work",
        ),
        (
            "SIGBUS",
            r"\(killed by signal: Bus error\), .* shared memory \(/dev/shm\) ran out: give it more room, or use",
        ),
        ("exits", r"\(exit code 3\), and its batch with it\. With data\.workers = 0 the reason is seen\.$"),
    ],
)
def test_a_process_that_is_gone_is_told_with_what_may_be_done(how, sentence):
    loader = DataLoader(Ending(how), batch_size=2, num_workers=1, prefetch_factor=1)
    with pytest.raises(LoaderError, match=r"^A process that loads data is gone " + sentence), explaining_lost_loaders():
        list(loader)
    watch = LoaderWatch()
    with pytest.raises(LoaderError, match=sentence), watch.installed():
        list(watch.batches(loader))


def test_other_errors_of_a_loader_stay_as_they_are():
    with pytest.raises(RuntimeError, match=r"^another$"), explaining_lost_loaders():
        raise RuntimeError("another")


def test_a_process_that_is_killed_in_the_middle_of_a_step_is_told_after_it():
    before = signal.getsignal(signal.SIGCHLD)
    watch, steps = LoaderWatch(), []
    loader = DataLoader(Ending("exits", at=99), batch_size=1, num_workers=2, prefetch_factor=1)
    iterator = iter(loader)

    def step() -> None:
        begun = time.monotonic()
        if len(steps) == 2:
            os.kill(iterator._workers[0].pid, signal.SIGKILL)
            while time.monotonic() - begun < 0.3:  # torch's handler would raise here
                time.sleep(0.01)
        steps.append(begun)

    with pytest.raises(LoaderError, match="killed by signal: Killed"), watch.installed():
        any(step() for _ in watch.batches(iterator))
    assert len(steps) == 3
    assert time.monotonic() - steps[-1] < 4  # told at once, not when the loader looks for its processes
    assert signal.getsignal(signal.SIGCHLD) != watch._note
    assert callable(before) or before == signal.SIG_DFL


def test_where_a_loader_begins_within_the_step_of_another_its_processes_are_watched_too():
    watch, outer = LoaderWatch(), DataLoader(Ending("exits", at=99), batch_size=3)
    inner = DataLoader(Ending("SIGKILL"), batch_size=2, num_workers=1, prefetch_factor=1)
    with pytest.raises(LoaderError, match="killed by signal: Killed"), watch.installed():
        [list(watch.batches(inner)) for _ in watch.batches(outer)]


@pytest.mark.parametrize(
    ("cores", "sharing", "begins", "expected"),
    [
        (1, None, "fork", 0),
        (2, None, "fork", 1),
        (6, None, "fork", 5),
        (64, None, "fork", 8),
        (64, "16", "fork", 3),
        (4, "8", "fork", 0),
        (6, "none", "fork", 5),
        (64, None, "spawn", 0),
        (64, None, "forkserver", 0),
    ],
)
def test_files_are_decoded_by_a_process_for_each_core_but_one(monkeypatch, cores, sharing, begins, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: begins)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if sharing is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", sharing)
    assert choose_workers(in_memory=False) == expected
    assert choose_workers(in_memory=True) == 0


def test_choosing_leaves_open_how_processes_are_started():
    code = "import qprune.data.workers as w, multiprocessing as m; w.choose_workers(False); m.set_start_method('spawn')"
    subprocess.run([sys.executable, "-c", code], check=True)
