import time

import pytest
import torch
from torch import nn

from qprune.costs import forward_times, time_table, timing


class Counting(nn.Module):
    def __init__(self, log, name, seconds=0.0):
        super().__init__()
        self.log, self.name, self.seconds = log, name, seconds

    def forward(self, x):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.log.append(self.name)
        time.sleep(self.seconds)
        return x


def test_networks_take_turns_after_one_forward_each():
    log = []
    times = forward_times({"a": Counting(log, "a"), "b": Counting(log, "b")}, torch.zeros(1), rounds=3)
    assert log == ["a", "b"] * 4
    assert list(times) == ["a", "b"]


def test_the_time_of_each_is_its_own():
    times = forward_times({"slow": Counting([], "s", 0.02), "fast": Counting([], "f")}, torch.zeros(1), rounds=3)
    assert times["slow"] >= 0.02 > times["fast"]


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (1e9, 99)])
def test_without_a_number_as_many_rounds_as_there_is_time_for(monkeypatch, seconds, rounds):
    monkeypatch.setattr(timing, "SECONDS", seconds)
    log = []
    forward_times({"a": Counting(log, "a")}, torch.zeros(1))
    assert len(log) == rounds + 1


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds must be 1 or more; received 0"):
        forward_times({}, torch.zeros(1), rounds=0)


def test_the_table_shows_milliseconds_and_ratios_to_the_first():
    lines = time_table({1: {"dense": 0.002, "shrunk": 0.0005}, 8: {"dense": 2.1, "shrunk": 0.84}}).splitlines()
    assert lines[0].split() == ["network", "batch", "1", "of", "dense", "batch", "8", "of", "dense"]
    assert lines[2].split() == ["dense", "2.000", "ms", "1.00", "2100", "ms", "1.00"]
    assert lines[3].split() == ["shrunk", "0.500", "ms", "0.25", "840.00", "ms", "0.40"]
