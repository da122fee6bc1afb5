import pytest
import torch
from torch import nn

from qprune.flow import trace

SIX = 6
X = torch.zeros(2, 3, 8, 10)


class Behind(nn.Module):
    """A convolution of six channels, and a function behind it."""

    def __init__(self, run):
        super().__init__()
        self.conv, self.run = nn.Conv2d(3, SIX, 1), run

    def forward(self, x):
        return self.run(self.conv(x))


def last(run):
    return trace(Behind(run), X).calls[-1]


def groups(x, count):
    return x.unflatten(1, (count, SIX // count))


@pytest.mark.parametrize(
    ("run", "layout"),
    [
        (lambda x: x.permute(0, 2, 3, 1), (3,)),
        (lambda x: groups(x, 2), (1, 2)),
        (lambda x: groups(x, 2).transpose(1, 2), (1, 2)),
        (lambda x: x.flatten(2).mT, (2,)),
        (lambda x: x.permute(0, 2, 3, 1).mean((1, 2)), (1,)),
        (lambda x: x.unsqueeze(1), (2,)),
        (lambda x: x[:, 2], ()),
        (lambda x: x.permute(0, 2, 3, 1).softmax(-1), (3,)),
        (lambda x: x.permute(0, 2, 3, 1) @ torch.ones(SIX, 4), (3,)),
    ],
)
def test_where_channels_lie(run, layout):
    assert last(run).layout == layout


@pytest.mark.parametrize(
    ("run", "origin"),
    [
        (lambda x: x.flip(1), [5, 4, 3, 2, 1, 0]),
        (lambda x: groups(x, 2).transpose(1, 2).reshape(2, SIX, 8, 10), [0, 3, 1, 4, 2, 5]),
        (lambda x: x.narrow(1, 2, 3), [2, 3, 4]),
        (lambda x: x.roll(2, 1), [4, 5, 0, 1, 2, 3]),
        (lambda x: x.tensor_split(4, 1)[1], [5]),  # the last of the four parts
    ],
)
def test_where_channels_come_from(run, origin):
    call = last(run)
    if call.name in ("reshape", "view"):  # of what was made before it, whose channels are numbered as they lie
        assert call.moves.origin.tolist() == [2 + number for number in range(SIX)]
    else:
        assert call.moves.origin.tolist() == [2 + number for number in origin]


def test_channels_that_meet_at_other_positions_are_all_told():
    moves = last(lambda x: torch.cat((x, x.flip(1)), 2)).moves
    assert moves.origin is None
    assert moves.table[0].nonzero().flatten().tolist() == [2, 2 + SIX]


@pytest.mark.parametrize(
    "run", [lambda x: x[:, torch.tensor([0, 1])], lambda x: x.index_select(1, torch.tensor([1, 0]))]
)
def test_what_a_tensor_picks_is_not_known_where_tensors_have_no_values(run):
    assert last(run).moves is None


def test_what_is_read_along_other_dimensions_is_not_matched():
    flow = trace(nn.Sequential(nn.Conv2d(3, SIX, 1), nn.Linear(10, 4)), X)
    assert (flow.calls[1].layouts, flow.calls[1].matched) == (((3,),), (False,))


def test_what_a_reshape_scrambles_is_not_followed():
    assert last(lambda x: x.view(2, 10, 8, SIX)).moves is None
