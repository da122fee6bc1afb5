import math

import pytest
import torch

from qprune.importances import IMPORTANCES, ActivationL1, Measured
from qprune.layers import ChannelMask, commit_masks
from qprune.schedules import OneShot

channel_score = ActivationL1().measure


def measure(mask, *batches):
    mask.train().measuring = True
    for x in batches:
        mask(x)
    mask.commit()


def test_new_mask_keeps_everything():
    mask, x = ChannelMask(3), torch.randn(2, 3, 5, 7)
    assert torch.equal(mask(x), x)
    assert mask.keep.all()
    assert mask.sparsity == 0


def test_dropped_channels_are_zero_and_the_others_unchanged():
    mask, x = ChannelMask(3), torch.randn(2, 3, 5, 7)
    mask.keep[1] = False
    y = mask(x)
    assert (y[:, 1] == 0).all()
    assert torch.equal(y[:, [0, 2]], x[:, [0, 2]])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_dropped_channel_is_zero_whatever_comes_in(value):
    mask, x = ChannelMask(3), torch.full((2, 3, 5), value)
    mask.keep[1] = False
    assert (mask(x)[:, 1] == 0).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_mask_runs_along_its_axis(axis):
    x = torch.randn(2, 3, 5)
    mask = ChannelMask(x.shape[axis], axis=axis)
    mask.keep[0] = False
    y = mask(x)
    assert (y.select(axis, 0) == 0).all()
    assert torch.equal(y.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, 1, x.shape[axis] - 1))


def test_dropped_channels_pass_no_gradient():
    mask, x = ChannelMask(3), torch.randn(2, 3, 5, requires_grad=True)
    mask.keep[1] = False
    mask(x).sum().backward()
    assert x.grad[:, 1].eq(0).all()
    assert x.grad[:, [0, 2]].eq(1).all()


def test_score_is_the_mean_over_batches_of_equal_weight():
    mask, batches = ChannelMask(3), [torch.randn(n, 3, 5, 7) for n in (4, 1, 2)]
    for x in batches:
        measure(mask, x)
    torch.testing.assert_close(mask.score, torch.stack([channel_score(x) for x in batches]).mean(0))
    assert mask.seen == 3


def test_several_forwards_of_one_step_are_parts_of_one_batch():
    parts, whole = ChannelMask(3), ChannelMask(3)
    for _ in range(2):
        batches = [torch.randn(n, 3, *size) for n, size in ((4, (5, 7)), (1, (5, 7)), (2, (3, 2)))]
        measure(parts, *batches)
        measure(whole, torch.cat([batch.transpose(0, 1).reshape(3, -1) for batch in batches], 1).T[:, :, None])
    torch.testing.assert_close(parts.score, whole.score)
    assert parts.seen == whole.seen == 2


def test_forget_drops_what_a_step_measured():
    mask = ChannelMask(3).train()
    mask.measuring = True
    mask(torch.randn(2, 3, 5))
    mask.forget()
    mask.commit()
    assert mask.seen == 0
    assert mask.score.eq(0).all()


def test_forward_alone_changes_nothing_that_arithmetic_uses():
    mask = ChannelMask(3).train()
    mask.measuring = True
    mask(torch.randn(2, 3, 5))
    assert mask.seen == 0
    assert mask.score.eq(0).all()


def test_commit_without_a_forward_changes_nothing():
    mask = ChannelMask(3)
    for _ in range(3):
        measure(mask, torch.randn(2, 3, 5))
    before = {name: value.clone() for name, value in mask.state_dict().items()}
    for _ in range(9):
        mask.commit()
    assert all(torch.equal(value, before[name]) for name, value in mask.state_dict().items())


def test_committing_together_equals_committing_one_by_one():
    together, apart = ([ChannelMask(channels).train() for channels in (3, 1, 5)] for _ in range(2))
    for step in range(4):
        for index, (first, second) in enumerate(zip(together, apart, strict=True)):
            first.measuring = second.measuring = (index + step) % 3 != 0  # some see nothing in a step
            x = torch.randn(2, first.channels, 6)
            first(x)
            second(x)
            second.commit()
        commit_masks(together)
    for first, second in zip(together, apart, strict=True):
        assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
        assert first.pending_count == 0
        assert first.pending_score.eq(0).all()


def test_committing_no_mask_at_all_is_fine():
    commit_masks([])


def test_commit_leaves_scores_alone_that_someone_else_set():
    mask, score = ChannelMask(3, importance="random"), torch.rand(3)
    mask.score.copy_(score)
    measure(mask, torch.randn(2, 3, 5))
    assert torch.equal(mask.score, score)


@pytest.mark.parametrize("importance", [word for word, each in IMPORTANCES.items() if not isinstance(each, Measured)])
def test_only_measured_importances_are_measured(importance):
    mask = ChannelMask(3, importance=importance)
    measure(mask, torch.randn(2, 3, 5))
    assert mask.seen == 0
    assert mask.score.eq(0).all()


def test_l0_importance_counts_nonzero_values():
    mask, x = ChannelMask(3, importance="activation-l0"), torch.randn(2, 3, 5, 7).relu()
    measure(mask, x)
    torch.testing.assert_close(mask.score, (x != 0).float().mean((0, 2, 3)))


def test_dropped_channels_are_measured_and_may_return():
    mask, x = ChannelMask(2), torch.tensor([[[3.0], [1.0]]])
    measure(mask, x)
    mask.refresh(0.5)
    assert mask.keep.tolist() == [True, False]
    measure(mask, x * torch.tensor([[0.0], [9.0]]))
    assert mask.score.tolist() == [1.5, 5]
    mask.refresh(0.5)
    assert mask.keep.tolist() == [False, True]


@pytest.mark.parametrize("mode", ["eval", "not measuring"])
def test_nothing_is_measured_unless_training_and_asked(mode):
    mask = ChannelMask(3).train(mode != "eval")
    mask.measuring = mode == "eval"
    mask(torch.randn(2, 3, 5))
    mask.commit()
    assert mask.seen == 0


def test_refresh_chooses_by_score_and_rounds_up_to_a_multiple():
    mask = ChannelMask(10, multiple_of=4)
    mask.score.copy_(torch.arange(10))
    mask.refresh(0.75)
    assert mask.keep.nonzero().flatten().tolist() == [6, 7, 8, 9]
    assert mask.sparsity == pytest.approx(0.6)


def test_repr_states_what_the_mask_is_for():
    line = "ChannelMask(6, importance='activation-l1', schedule=OneShot(sparsity=0.5, at=3, measure=1))"
    assert repr(ChannelMask(6, schedule=OneShot(0.5, 3))) == line


def test_refresh_refuses_nan_scores():
    mask = ChannelMask(3)
    measure(mask, torch.full((2, 3, 5), math.nan))
    with pytest.raises(ValueError, match="scores hold NaN"):
        mask.refresh(0.5)


@pytest.mark.parametrize(("channels", "multiple"), [(0, 1), (4, 0)])
def test_counts_below_1_are_refused(channels, multiple):
    sentence = f"^channels and multiple_of must be at least 1; received {channels} and {multiple}$"
    with pytest.raises(ValueError, match=sentence):
        ChannelMask(channels, multiple_of=multiple)


def test_unknown_importance_is_refused():
    sentence = f"^importance must be one of {', '.join(IMPORTANCES)}; received 'l1'$"
    with pytest.raises(ValueError, match=sentence):
        ChannelMask(4, importance="l1")
