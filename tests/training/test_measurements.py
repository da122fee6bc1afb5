"""Two processes in one: what the first tells is kept, and then told to the second. tests/whole has real ones."""

import copy

import pytest
import torch
from counting import Operations

from qprune.layers import ChannelMask, FakeQuant
from qprune.training import ranks
from qprune.training.measurements import Measurements


@pytest.fixture
def exchanging(monkeypatch):
    """Exchanges of a process with others, whose tensors were kept, if there are any."""

    def begin(others=()):
        told, left = [], list(others)

        def exchange(tensors, combine):
            (tensor,) = tensors
            told.append(tensor.clone())
            return [combine(tensor, left.pop(0)) if left else tensor]

        monkeypatch.setattr(ranks, "world", lambda: 2)
        monkeypatch.setattr(ranks, "summed", lambda tensors: exchange([t.double() for t in tensors], torch.add))
        monkeypatch.setattr(ranks, "lowest", lambda tensors: exchange(tensors, torch.minimum))
        return told

    return begin


def parts(count=1):
    made = []
    for number in range(count):
        made += [ChannelMask(3 + number % 5), ChannelMask(4, importance="taylor")]
        made += [FakeQuant(4), FakeQuant(8, channels=3 + number % 5, axis=1, symmetric=True)]
    for part in made:
        part.train().measuring = True
    return made


def feed(found, images):
    for part in found:
        x = images[:, : part.channels or 3].clone().requires_grad_()
        (part(x) ** 2).sum().backward() if isinstance(part, ChannelMask) else part(x)


def test_what_two_processes_measured_is_what_one_would_have(exchanging, monkeypatch):
    first, second = torch.randn(4, 9, 5), torch.randn(2, 9, 5) * 3
    here, there, alone = (parts() for _ in range(3))
    feed(here, first)
    feed(there, second)
    feed(alone, torch.cat([first, second]))
    told = exchanging()
    kept = copy.deepcopy(there)
    Measurements(there).commit()
    exchanging(told)
    Measurements(here).commit()
    monkeypatch.undo()
    Measurements(alone).commit()
    assert [len(tensor.flatten()) for tensor in told] == [
        2 * (1 + 3),
        3 + 4 + 2,
    ]  # one tensor for ranges, one for scores
    for ours, whole in zip(here[2:], alone[2:], strict=True):
        assert torch.equal(ours.range, whole.range)
        assert torch.equal(ours.scale, whole.scale)
    torch.testing.assert_close(here[0].score, alone[0].score)
    torch.testing.assert_close(here[1].score * 2**2, alone[1].score)  # its gradients are those of a loss twice as large
    assert kept[0].seen == 0


def test_many_sites_travel_and_are_committed_in_as_many_operations_as_a_few(exchanging):
    totals = []
    for count in (2, 30):
        found = parts(count)
        measurements = Measurements(found)
        exchanging()
        for _ in range(2):  # the first lays out
            feed(found, torch.randn(2, 9, 5))
            with Operations() as operations:
                measurements.commit()
        totals.append(operations.total)
    assert totals[0] == totals[1] <= 65
