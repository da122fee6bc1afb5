"""Rules of groups: those that a spec and `swap` read, dropping exactly the channels that were meant."""

import pytest
import torch
from torch import nn

import qprune
from qprune.budget import Group
from qprune.budget.rules import prune_rules, quantize_rules
from qprune.functional import keep_top

SUM = Group("a.output", members=("a", "b"), weights=("conv",), channels=16, coupled=True)
ALONE = Group("c.output", members=("c",), weights=("d", "e"), channels=12)
SCHEDULE = {"kind": "one-shot", "at": "2ep"}


def test_coupled_groups_are_one_rule_and_the_others_another():
    coupled, alone = prune_rules({ALONE: 3, SUM: 4}, "activation-l1", SCHEDULE)
    assert coupled == {
        "sites": [{"paths": ["a", "b"], "at": "output"}],
        "sparsity": 0.25,
        "importance": "activation-l1",
        "couple": True,
        "schedule": SCHEDULE,
    }
    assert (alone["sites"][0]["paths"], "couple" in alone) == (["c"], False)


def test_different_shares_are_a_table_of_paths():
    other = Group("z.output", members=("z",), weights=(), channels=8)
    assert prune_rules({ALONE: 3, other: 6}, "l1", SCHEDULE)[0]["sparsity"] == {"c": 0.25, "z": 0.75}


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 48, 100, 1023, 2048])
def test_a_share_drops_as_many_channels_as_were_meant(channels):
    for dropped in range(channels):
        group = Group("c.output", members=("c",), weights=(), channels=channels)
        (rule,) = prune_rules({group: dropped}, "l1", SCHEDULE)
        assert int((~keep_top(torch.rand(channels), rule["sparsity"])).sum()) == dropped


def test_weights_that_make_a_group_get_its_bits_and_its_values_too():
    weights, values = quantize_rules({SUM: 4, ALONE: 8}, ("1ep", "2ep"), range="learned")
    assert weights == {
        "sites": [{"paths": ["conv", "d", "e"], "at": "weight"}],
        "bits": {"conv": 4, "d": 8, "e": 8},
        "per": "channel",
        "start": "2ep",
        "range": "learned",
    }
    assert (values["bits"], values["start"]) == ({"a": 4, "b": 4, "c": 8}, "1ep")


def test_paths_of_a_part_begin_with_where_it_is():
    assert prune_rules({ALONE: 3}, "l1", SCHEDULE, "generator.")[0]["sites"][0]["paths"] == ["generator.c"]
    assert quantize_rules({ALONE: 4}, (0, 0), "generator.")[0]["sites"][0]["paths"] == ["generator.d", "generator.e"]


def test_swap_takes_them():
    net = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 2, 1))
    group = Group("1.output", members=("1",), weights=("0",), channels=12)
    small = qprune.swap(net, torch.zeros(1, 3, 5, 7), prune=prune_rules({group: 3}, "activation-l1", SCHEDULE))
    assert small[1].output_mask.schedule.sparsity == 0.25
