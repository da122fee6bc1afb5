import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from qprune.training.owner import Owner


@pytest.fixture
def sleeper():
    """Another process, which sleeps until it is ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(60)"],
                               stdout=subprocess.PIPE)  # fmt: skip
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def claim_of(process: int) -> Owner:
    """What this process would have said, had it that number."""
    facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return evolve(Owner.claiming(), process=process, started=facts[19])


def test_an_owner_is_read_from_its_own_text():
    owner = evolve(Owner.claiming(), host="a,b=c/d:é")
    assert "/" not in owner.text
    assert Owner.read(owner.text) == owner


@pytest.mark.parametrize("text", ["", "notes.txt", ".nfs0001", "host=a,process=1", "a=b,c"])
def test_other_text_tells_of_no_owner(text):
    assert Owner.read(text) is None


def test_text_with_another_number_of_a_process_tells_of_no_owner():
    text = Owner.claiming().text
    for wrong in ("-1", "x", "", "1.5"):
        assert Owner.read(text.replace(f"process={os.getpid()}", f"process={wrong}")) is None


@pytest.mark.parametrize("change", [{"host": "\x1b[2J"}, {"since": 10**20}, {"process": 0}])
def test_text_that_cannot_be_shown_tells_of_no_owner(change):
    assert Owner.read(evolve(Owner.claiming(), **change).text) is None


def test_a_claim_is_made_once():
    first, second = Owner.claiming(), Owner.claiming()
    assert first.claim != second.claim
    assert first.text != second.text


def test_this_process_has_not_ended():
    assert Owner.claiming().ended is False
    assert str(Owner.claiming()).startswith(f"process {os.getpid()} (this one) on ")


def test_a_process_has_ended_once_it_was_killed_even_if_nobody_asked_for_its_exit_code(sleeper):
    owner = claim_of(sleeper.pid)
    assert owner.ended is False
    assert "(this one)" not in str(owner)
    os.kill(sleeper.pid, signal.SIGSTOP)
    assert owner.ended is False
    os.kill(sleeper.pid, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert owner.ended is True  # a zombie
    sleeper.wait()
    assert owner.ended is True


def test_a_process_with_the_number_of_one_that_ended_is_told_apart(sleeper):
    assert evolve(claim_of(sleeper.pid), started="1").ended is True
    assert evolve(Owner.claiming(), started="1").ended is True


def test_a_number_that_no_process_can_have_is_of_one_that_ended():
    assert evolve(Owner.claiming(), process=10**30).ended is True


def test_what_ran_before_the_machine_was_started_anew_has_ended(monkeypatch):
    known = {"/etc/machine-id": "76543210", "/proc/sys/kernel/random/boot_id": "01234567"}
    monkeypatch.setattr("qprune.training.owner._beginning", known.get)
    assert evolve(Owner.claiming(), boot="89abcdef").ended is True
    known["/etc/machine-id"] = ""  # then it may as well be another machine of the same name
    assert evolve(Owner.claiming(), boot="89abcdef").ended is None


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"machine": "01234567"}, {"space": "7"}])
def test_of_another_machine_or_container_nothing_is_known(change):
    owner = evolve(Owner.claiming(), process=10**6, **change)
    assert owner.ended is None
    assert str(owner).startswith(f"process 1000000 on {owner.host} since 20")


def test_a_process_of_another_user_runs(monkeypatch):
    def forbidden(process, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert Owner.claiming().ended is False
