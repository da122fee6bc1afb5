"""One process alone; several are in tests/whole/test_processes.py."""

import pytest
import torch
from counting import Operations
from torch import nn

from qprune.errors import QpruneError, TrainingError
from qprune.training import ranks


def test_a_process_alone_is_the_first_of_one_and_writes():
    assert (ranks.rank(), ranks.world(), ranks.is_writer()) == (0, 1, True)


def test_started_beside_others_only_the_first_writes_even_when_they_have_parted(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for number, writes in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", number)
        assert ranks.is_writer() is writes


def test_alone_nothing_is_exchanged():
    values = torch.tensor([1.5, -2.0])
    assert ranks.agree(True, False) == (True, False)
    assert ranks.gathered({"a": values}) == [{"a": values}]
    assert ranks.summed([values])[0].tolist() == ranks.lowest([values])[0].tolist() == [1.5, -2.0]
    ranks.check_alike(lambda: pytest.fail("asked for tensors that nobody compares"), "The masks")


def test_statistics_of_one_process_stay_as_they_are():
    norm = nn.BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    ranks.average_statistics(norm)
    assert norm.running_mean.tolist() == [1, 2, 3]


def test_statistics_of_many_norms_travel_together(monkeypatch):
    totals = []
    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks.dist, "all_reduce", lambda values, _: values.mul_(3))  # another one has twice as much
    for count in (2, 40):
        norms = nn.Sequential(*(nn.BatchNorm2d(3 + number % 4) for number in range(count)))
        norms[1].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        with Operations() as operations:
            ranks.average_statistics(norms)
        assert norms[1].running_mean.tolist() == [1.5, 3, 4.5, 6]
        assert norms[0].running_var.tolist() == [1.5] * 3
        totals.append(operations.total)
    assert totals[0] == totals[1] <= 10


def test_a_digest_tells_bits_apart():
    assert ranks.digest([torch.tensor(0.0)]) != ranks.digest([torch.tensor(-0.0)])
    assert ranks.digest([torch.ones(2, 3).t()]) == ranks.digest([torch.ones(3, 2)])


@pytest.mark.parametrize(
    ("name", "gpus", "device"),
    [(None, True, "cuda:3"), ("cuda", False, "cuda:3"), (None, False, None), ("cpu", True, "cpu")],
)
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, name, gpus, device):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    assert ranks.device_of_rank(name) == device


def test_a_process_that_holds_other_masks_is_named(monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 3)
    monkeypatch.setattr(ranks, "gathered", lambda own: [own, "another", own])
    with pytest.raises(TrainingError, match="The masks of process 1 are not those of process 0"):
        ranks.check_alike(lambda: [torch.zeros(2)], "The masks")


@pytest.mark.parametrize("wrong", ["abc", "0", "-3", "nan", "inf", "1e12"])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(monkeypatch, wrong):
    monkeypatch.setenv("QPRUNE_RANK_TIMEOUT", wrong)
    with pytest.raises(
        QpruneError, match=r"^QPRUNE_RANK_TIMEOUT must be a number of seconds above 0 and below 100000000; "
    ):
        ranks.rank_timeout()


def test_the_timeout_is_half_an_hour_or_what_the_variable_says(monkeypatch):
    monkeypatch.delenv("QPRUNE_RANK_TIMEOUT", raising=False)
    assert ranks.rank_timeout() == 1800
    monkeypatch.setenv("QPRUNE_RANK_TIMEOUT", "2.5")
    assert ranks.rank_timeout() == 2.5


@pytest.mark.parametrize("told", [{}, {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}])
def test_a_process_that_meets_nobody_tells_what_it_was_told(monkeypatch, told):
    monkeypatch.setattr(ranks, "_MEETING", 0.5)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"WORLD_SIZE": "2", "QPRUNE_RANK_TIMEOUT": "1"} | told).items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(
            TrainingError, match=r"did not all meet within 1 s; this one was told RANK .*, WORLD_SIZE 2, "
        ) as e,
        ranks.joined(torch.device("cpu")),
    ):
        pass
    assert str(e.value).endswith("Start them with torchrun; to train alone, unset WORLD_SIZE.")
    assert not ranks.several()


def test_a_world_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(
        QpruneError, match=r'^WORLD_SIZE must be a whole number; received "two". Unset it, or start with'
    ):
        ranks.is_writer()
