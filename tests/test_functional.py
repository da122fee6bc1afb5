import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qprune.functional import joint_score, keep_top, kept_channels


@pytest.mark.parametrize(
    ("channels", "sparsity", "dropped"),
    [
        (3, 0.5, 1),
        (3, 0.75, 2),
        (5, 0.75, 3),
        (10, 0.75, 7),
        (48, 0.5, 24),
        (48, 0.75, 36),
        (64, 0.5, 32),
        (64, 0.75, 48),
    ],
)
def test_distinct_scores_drop_the_published_count(channels, sparsity, dropped):
    score = torch.randperm(channels).float()
    keep = keep_top(score, sparsity)
    assert (~keep).sum() == dropped
    assert score[~keep].max() < score[keep].min()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
def test_exactly_the_floor_is_dropped_whatever_the_ties(score, sparsity):
    keep = keep_top(torch.tensor(score, dtype=torch.float32), sparsity)
    assert (~keep).sum() == min(len(score) - 1, math.floor(sparsity * len(score) + 1e-9))
    kept, dropped = ([s for s, k in zip(score, keep.tolist(), strict=True) if k is which] for which in (True, False))
    assert not dropped or max(dropped) <= min(kept)


def test_rounding_error_does_not_keep_a_channel_too_many():
    assert 0.7 * 10 < 7 or 0.29 * 100 < 29  # the trap exists
    assert kept_channels(10, 0.7) == 3
    assert kept_channels(100, 0.29) == 71


def test_of_equal_scores_the_lower_index_is_kept():
    assert keep_top(torch.ones(5), 0.6).tolist() == [True, True, False, False, False]
    assert keep_top(torch.tensor([1.0, 2, 1, 2, 1]), 0.4).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize(("channels", "sparsity"), [(1, 0.999), (2, 0.99), (7, 0.9999999999)])
def test_last_channel_is_never_dropped(channels, sparsity):
    assert keep_top(torch.zeros(channels), sparsity).sum() == 1


def test_sparsity_zero_drops_nothing():
    assert keep_top(torch.zeros(5), 0).all()


@pytest.mark.parametrize(
    ("channels", "multiple", "kept"), [(10, 8, 8), (10, 4, 4), (10, 3, 3), (10, 16, 10), (64, 32, 32)]
)
def test_kept_count_is_rounded_up_to_a_multiple(channels, multiple, kept):
    assert kept_channels(channels, 0.75, multiple) == kept
    assert keep_top(torch.rand(channels), 0.75, multiple).sum() == kept


def test_infinite_score_is_kept():
    assert keep_top(torch.tensor([1.0, math.inf, 2.0]), 0.5).tolist() == [False, True, True]


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match=r"^scores hold NaN: the network's values .* lower the learning rate$"):
        keep_top(torch.tensor([1.0, math.nan]), 0.5)


@pytest.mark.parametrize("sparsity", [1, 1.5, -0.1, math.nan])
def test_sparsity_outside_its_range_is_refused(sparsity):
    with pytest.raises(ValueError, match=rf"^sparsity must be in \[0, 1\); received {sparsity!r}$"):
        keep_top(torch.ones(3), sparsity)


def test_multiple_below_1_is_refused():
    with pytest.raises(ValueError, match=r"^multiple_of must be at least 1; received 0$"):
        keep_top(torch.ones(3), 0.5, multiple_of=0)


def test_a_joint_score_adds_shares():
    scores = [torch.tensor([1.0, 3.0, 0.0]), torch.tensor([500.0, 0.0, 500.0]), torch.zeros(3)]
    assert joint_score(scores).tolist() == [0.75, 0.75, 0.5]
    assert joint_score([torch.tensor([torch.nan, 1.0])]).isnan().all()
