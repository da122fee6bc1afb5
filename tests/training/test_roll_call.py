"""Several processes as threads that share a store; real ones are in tests/whole/test_process_faults.py."""

import threading
import time

import pytest
import torch.distributed as dist

from qprune.errors import SpecError, TrainingError
from qprune.training import roll_call
from qprune.training.roll_call import LostError, RollCall

TIMED_OUT = "[gloo/transport/tcp/unbound_buffer.cc:129] Timed out waiting 3000ms for send operation to complete"
CLOSED = "Connection closed by peer [127.0.0.1]:49335"


def lost(text):
    error = LostError("The other processes were lost.")
    error.__cause__ = RuntimeError(text)
    return error


@pytest.fixture
def ended(monkeypatch):
    """What each process ends with, given what it meets and after how many seconds; None for one that says nothing."""
    monkeypatch.setattr(roll_call, "PATIENCE", 0.6)

    def end(*met, seconds=1.0):
        store, said = dist.HashStore(), {}

        def process(number, after, error):
            time.sleep(after)
            said[number] = RollCall(store, number, len(met), seconds).explained(error)

        threads = [threading.Thread(target=process, args=(n, *what)) for n, what in enumerate(met) if what is not None]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return said

    return end


def test_the_first_that_failed_ends_all_with_its_words(ended):
    own, other = SpecError("it is wrong"), SpecError("so is this")
    said = ended((0.2, lost(CLOSED)), (0, own), (0.3, other))
    assert said[1] is own
    for number in (0, 2):
        assert type(said[number]) is TrainingError
        assert str(said[number]) == "Process 1 failed, which ends all of them: it is wrong"


def test_an_error_of_python_s_is_told_with_its_kind(ended):
    own = KeyError("a")
    said = ended((0, lost(CLOSED)), (0.1, own))
    assert said[1] is own
    assert str(said[0]) == "Process 1 failed, which ends all of them: KeyError: 'a'"


def test_those_that_do_not_answer_in_time_are_named_by_all_others(ended):
    said = ended((0, lost(TIMED_OUT)), None, (0.2, lost(CLOSED)), None)
    assert said.keys() == {0, 2}
    for error in said.values():
        assert str(error) == (
            "Process 1, 3 did not answer for 1 s, which ends all of them: it hangs, was stopped, or is far behind the "
            "others. Go on from the last checkpoint with --resume. Where such waits are right, set QPRUNE_RANK_TIMEOUT "
            "to more seconds."
        )


def test_the_gradients_exchange_which_is_torch_s_own_is_known_by_its_words(ended):
    assert "Process 1 did not answer for 1 s" in str(ended((0, RuntimeError(TIMED_OUT)), None)[0])


def test_one_that_is_gone_is_named(ended):
    said = ended((0, lost(CLOSED)), (0.1, lost(CLOSED)), None)
    for error in said.values():
        assert str(error) == (
            "Process 2 is gone without a word (killed for its memory?), which ends all of them. Go on from the last "
            "checkpoint with --resume."
        )


def test_where_all_still_run_that_is_told(ended):
    said = ended((0, lost(TIMED_OUT)), (0.1, lost(TIMED_OUT)))
    assert str(said[0]) == str(said[1])
    assert str(said[0]).startswith(
        "The processes lost each other, though all of them run, which ends all of them. Go on"
    )


def test_one_that_wakes_later_is_told_the_same(ended):
    said = ended((0, lost(TIMED_OUT)), (1.5, lost(CLOSED)))
    assert str(said[1]) == str(said[0])
    assert "Process 1 did not answer" in str(said[1])


def test_a_store_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(roll_call, "PATIENCE", 0.1)

    class Hung:
        def set(self, *_):
            time.sleep(60)

        compare_set = set

    call, own = RollCall(Hung(), 1, 2, 0.1), SpecError("it is wrong")
    assert str(call.explained(lost(TIMED_OUT))).startswith(
        "Process 0, or torchrun, which keeps the processes in touch, is gone or does not answer, which ends all of "
    )
    assert call.explained(own) is own
