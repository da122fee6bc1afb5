"""Choices: budgets are met, what was measured decides, and no other single step would be better."""

from random import Random

import pytest
import torch
from attrs import evolve

from qprune import zoo
from qprune.budget.budgets import read_budgets
from qprune.budget.changing import fitted
from qprune.budget.choosing import ByChance, BySensitivity, Problem, Uniform, check_limits
from qprune.budget.costs import Choice, model_costs
from qprune.budget.groups import find_groups
from qprune.budget.sensitivity import Curve
from qprune.errors import PlanError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net, example = zoo.create("resnet20", width=0.5), torch.zeros(1, 3, 32, 32)
    groups = find_groups(net, example)
    return model_costs(fitted(net, example, groups, groups), example, groups)


def dense_of(model):
    return model.costs(dict.fromkeys(model.groups, Choice()))


def problem(model, widths=(None,), steep=(), **shares):
    """Each group harms by the square of what it drops; those named ``steep`` a hundred times as much."""
    curves = {}
    for group in model.groups:
        factor = 100 if group.name.startswith(tuple(steep)) else 1
        ratios = {ratio: factor * ratio**2 for ratio in (0.25, 0.5, 0.75, 0.875)} if group.members else {}
        curves[group] = [Curve(group, ratios, {2: 1.0 * factor, 4: 0.05 * factor, 8: 0.001 * factor})]
    dense = dense_of(model)
    limits = {kind: share * dense[kind] for kind, share in shares.items()}
    prunable = frozenset(group for group in model.groups if group.members)
    return Problem(model.groups, prunable, widths, model.costs, limits, measured=curves)


@pytest.mark.parametrize("method", [Uniform(), ByChance(0), ByChance(1), BySensitivity()], ids=str)
@pytest.mark.parametrize("share", [0.7, 0.5, 0.25, 0.06])
def test_a_budget_is_met_and_nearly_used_up(model, method, share):
    asked = problem(model, macs=share)
    costs = model.costs(method.choose(asked))
    assert costs["macs"] <= asked.limits["macs"]
    assert costs["macs"] >= 0.8 * asked.limits["macs"]


@pytest.mark.parametrize("share", [0.7, 0.5, 0.25, 0.06])
def test_what_is_found_uses_the_budget_to_two_percent(model, share):
    asked = problem(model, macs=share)
    assert model.costs(BySensitivity().choose(asked))["macs"] >= 0.98 * asked.limits["macs"]


def test_several_budgets_are_met_at_once(model):
    asked = problem(model, (2, 4, 8), bops=0.01, bytes=0.1, macs=0.4)
    costs = model.costs(BySensitivity().choose(asked))
    assert all(costs[kind] <= limit for kind, limit in asked.limits.items())
    assert max(costs[kind] / limit for kind, limit in asked.limits.items()) >= 0.98


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_it_harms_less_than_the_same_share_everywhere_or_chance(model, share):
    asked = problem(model, steep=("stage3",), macs=share)
    harms = [
        asked.total_harm(method.choose(asked)) for method in (BySensitivity(), Uniform(), ByChance(0), ByChance(1))
    ]
    assert harms[0] < 0.6 * min(harms[1:])


def test_what_harms_more_is_pruned_less(model):
    asked = problem(model, steep=("stage2",), macs=0.5)
    kept = {
        group: 1 - choice.dropped / group.channels
        for group, choice in BySensitivity().choose(asked).items()
        if group.members
    }
    steep = [share for group, share in kept.items() if group.name.startswith("stage2")]
    others = [share for group, share in kept.items() if not group.name.startswith("stage2")]
    assert min(steep) > 0.9
    assert sum(others) / len(others) < min(steep) - 0.1


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_no_exchange_of_one_group_for_another_would_be_better(model, share):
    asked = problem(model, macs=share)
    found = BySensitivity().choose(asked)
    least = asked.total_harm(found)
    for one in asked.prunable:
        for other in asked.prunable:
            more, less = found[one].dropped + 1, found[other].dropped - 1
            if one != other and less >= 0 and more <= asked.most_dropped(one):
                exchanged = {**found, one: Choice(more), other: Choice(less)}
                assert not asked.meets(exchanged) or asked.total_harm(exchanged) > 0.98 * least


@pytest.mark.parametrize(("share", "spread"), [(0.25, 300), (0.06, 3)])
def test_in_a_chain_of_layers_it_finds_what_no_exchange_from_elsewhere_does(share, spread):
    """Each layer of VGG-7 costs a product of two counts, so steps that go well together cost more than their sum."""
    net, example = zoo.create("vgg7", width=0.25), torch.zeros(1, 3, 32, 32)
    groups = find_groups(net, example)
    asked = problem(model_costs(fitted(net, example, groups, groups), example, groups), macs=share)
    random = Random(1)
    asked = evolve(asked, measured={group: [_curve(group, spread ** random.uniform(-1, 1))] for group in groups})
    found = BySensitivity().choose(asked)
    assert asked.total_harm(found) <= min(_exchanged(asked, ByChance(seed).choose(asked)) for seed in range(2))


def _curve(group, factor):
    return Curve(group, {ratio: factor * ratio**2 for ratio in (0.25, 0.5, 0.75, 0.875)} if group.members else {})


def _exchanged(asked, point):
    """The harm after exchanges of a tenth of a group for a tenth of another, as long as they help."""
    while True:
        steps = {group: max(1, group.channels // 10) for group in asked.prunable}
        exchanges = [
            point | {one: Choice(max(0, point[one].dropped - steps[one])),
                     other: Choice(min(asked.most_dropped(other), point[other].dropped + times * steps[other]))}
            for one in asked.prunable for other in asked.prunable if one != other for times in (0, 1, 2, 4)
        ]  # fmt: skip
        better = min(filter(asked.meets, exchanges), key=asked.total_harm, default=point)
        if asked.total_harm(better) >= asked.total_harm(point) - 1e-9:
            return asked.total_harm(point)
        point = better


def test_the_same_share_everywhere_is_the_same_share_everywhere(model):
    asked = problem(model, macs=0.3)
    shares = {choice.dropped / group.channels for group, choice in Uniform().choose(asked).items() if group.members}
    assert max(shares) - min(shares) < 1 / 8


def test_uniform_bits_are_those_that_harm_least(model):
    asked = problem(model, (2, 4, 8), bops=0.01)
    widths = {choice.bits for choice in Uniform().choose(asked).values()}
    assert widths == {4}  # 8 bits would need three quarters of the channels to go, 2 bits harm by themselves


def test_chance_is_another_with_another_seed(model):
    asked = problem(model, macs=0.5)
    assert ByChance(0).choose(asked) == ByChance(0).choose(asked) != ByChance(1).choose(asked)


def test_every_group_keeps_a_share_of_its_channels(model):
    asked = problem(model, macs=0.02)
    found = BySensitivity().choose(asked)
    assert all(group.channels - choice.dropped >= 0.1 * group.channels for group, choice in found.items())


def test_what_cannot_be_pruned_keeps_all(model):
    asked = problem(model, macs=0.5)
    fixed = asked.groups[2]
    narrower = Problem(
        asked.groups, asked.prunable - {fixed}, (None,), asked.costs, asked.limits, measured=asked.measured
    )
    assert all(method.choose(narrower)[fixed].dropped == 0 for method in (Uniform(), ByChance(0), BySensitivity()))


def test_harm_between_measured_ratios_is_on_a_line_and_beyond_them_goes_on(model):
    group = model.groups[0]
    asked = problem(model)
    half, most = Choice(round(0.375 * group.channels)), Choice(group.channels - 1)
    assert group.channels == 8
    assert asked.harm(group, half) == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert asked.harm(group, most) == pytest.approx(0.875**2)
    measured = {group: [Curve(group, {0.5: 1.0, 0.75: 2.0})]}
    beyond = Problem((group,), frozenset([group]), (None,), model.costs, {}, measured=measured)
    assert beyond.harm(group, most) == pytest.approx(2.5)


def test_a_budget_that_cannot_be_met_says_what_can(model):
    asked = problem(model, macs=0.001)
    with pytest.raises(PlanError) as error:
        check_limits(asked, read_budgets({"macs": 0.001}), dense_of(model), model.costs(asked.smallest()))
    assert str(error.value).startswith(
        "The budget macs = 0.1 % cannot be met: with 10 % of the channels of each group the network costs "
    )
    assert str(error.value).endswith("% of the dense network's. Ask for that or more.")


def test_fewer_bits_are_proposed_where_they_cost_less(model):
    asked = problem(model, bytes=1e-4)
    with pytest.raises(PlanError, match=r"Ask for that or more, or give fewer bits\.$"):
        check_limits(asked, read_budgets({"bytes": 1e-4}), dense_of(model), model.costs(asked.smallest()))


def test_a_budget_that_is_met_already_says_what_the_network_costs(model):
    asked = problem(model, macs=1.0)
    with pytest.raises(PlanError) as error:
        check_limits(asked, read_budgets({"macs": 1.0}), dense_of(model), model.costs(asked.smallest()))
    assert str(error.value) == "The dense network meets the budget already: it costs macs = 10.25 M. Ask for less."


def test_what_is_lost_already_counts_for_nothing_and_noise_not_as_gain(model):
    group = model.groups[0]
    alone, half_way = Curve(group, {0.25: 1.0, 0.5: 3.0}), Curve(group, {0.0: 10.0, 0.25: 11.0, 0.5: 10.5})
    asked = Problem((group,), frozenset([group]), (None,), model.costs, {}, measured={group: [alone, half_way]})
    assert [asked.harm(group, Choice(count)) for count in (0, 2, 4)] == [0.0, 1.0, 2.0]
