import copy
import itertools

import pytest
import torch
from on_gpu import Calls

from qprune.layers import ChannelMask, Commits, FakeQuant, LearnedQuant, Scores, ranges_of

FORMS = [
    {"numerics": numerics, "symmetric": symmetric, "bits": bits, "channels": channels}
    for numerics, symmetric, bits, channels in itertools.product(
        ("default", "paper", "exact"), (True, False), (3, 8), (None, 5)
    )
]


def measured(parts):
    """Two lists of the same compressors, in training and measuring."""
    for part in parts:
        part.train().measuring = True
    return parts, copy.deepcopy(parts)


def step(kept, apart):
    for first, second in zip(kept, apart, strict=True):
        x = torch.randn(2, first.channels or 4, 6)
        first(x)
        second(x)
        second.commit()


def same(kept, apart):
    pairs = zip(kept, apart, strict=True)
    return all(
        torch.equal(b, dict(second.named_buffers())[n]) for first, second in pairs for n, b in first.named_buffers()
    )


@pytest.fixture
def laid_out(monkeypatch):
    """Which commits were laid out, in their order."""
    found = []
    lay_out = Commits._lay_out

    def watched(commits):
        lay_out(commits)
        found.append(commits)

    monkeypatch.setattr(Commits, "_lay_out", watched)
    return found


def test_ranges_that_are_kept_are_those_that_are_made_anew_for_every_step():
    kept, apart = measured([FakeQuant(**form) for form in FORMS])
    ranges = Commits(ranges_of(kept))
    for number in range(4):
        step(kept, apart)
        ranges.commit()
        assert same(kept, apart)
        for quant in (*kept, *apart):  # somebody starts them, and loads other values
            quant.active.fill_(number > 1)
            quant.range.mul_(1.5)
            quant.seen.add_(number)


def test_scores_that_are_kept_are_those_that_are_made_anew_for_every_step():
    kept, apart = measured([ChannelMask(channels) for channels in (3, 1, 5)])
    scores = Commits([Scores(kept)])
    for number in range(4):
        step(kept, apart)
        scores.commit()
        assert same(kept, apart)
        for mask in (*kept, *apart):
            mask.score.mul_(1.5)
            mask.seen.add_(number)


def selected(part):
    part.select(torch.tensor([2, 0]))


def assigned(part):
    part.load_state_dict({name: value.clone() for name, value in part.state_dict().items()}, assign=True)


def moved(part):
    part._apply(torch.clone)


@pytest.mark.parametrize("change", [selected, assigned, moved])
def test_buffers_that_are_replaced_are_found(change, laid_out):
    kept, apart = measured([FakeQuant(4, channels=3), FakeQuant(4), ChannelMask(3), ChannelMask(7)])
    commits = Commits([*ranges_of(kept[:2]), Scores(kept[2:])])

    def run(steps):
        for _ in range(steps):
            step(kept, apart)
            commits.commit()

    run(steps=3)
    assert laid_out.count(commits) == 1
    for part in (kept[0], apart[0], kept[2], apart[2]):
        change(part)
    run(steps=2)
    assert laid_out.count(commits) == 2
    assert same(kept, apart)


def test_a_channel_that_is_no_number_is_left_out_and_the_step_counts_for_the_others():
    quant = FakeQuant(4, channels=3)
    quant.pending_low.copy_(torch.tensor([-1.0, torch.nan, -torch.inf]))
    quant.pending_high.copy_(torch.tensor([2.0, 3.0, 4.0]))
    quant.commit()
    assert quant.range.tolist() == [[-1, 0, 0], [2, 0, 0]]
    assert quant.scale.tolist() == pytest.approx([0.2, 1, 1])
    assert quant.seen == 1


def test_buffers_of_one_dtype_are_read_at_once_and_written_at_once():
    quants = [FakeQuant(4), FakeQuant(4, symmetric=True), FakeQuant(8, numerics="paper"), LearnedQuant(4)]
    kept, apart = measured([*quants, ChannelMask(3)])
    commits = Commits([*ranges_of(kept[:4]), Scores(kept[4:])])
    for _ in range(2):  # the first lays them out
        step(kept, apart)
        with Calls() as calls:
            commits.commit()
        assert same(kept, apart)
    dtypes = 3  # floats, zero points, counts
    assert calls.counts["aten::_foreach_copy_"] == dtypes
    assert calls.counts["aten::cat"] == dtypes + 1  # and which of those that learn are active
    assert not calls.counts["aten::fill_"]


def test_the_next_step_starts_with_nothing_measured():
    quant, mask = FakeQuant(4, channels=3).train(), ChannelMask(3).train()
    quant.measuring = mask.measuring = True
    commits = Commits([*ranges_of([quant]), Scores([mask])])
    for _ in range(2):
        quant(mask(torch.randn(2, 3, 5)))
        commits.commit()
        for part in (quant, mask):
            for name, nothing in part.unsaved().items():
                assert torch.equal(part._buffers[name], nothing)
