"""Costs as a function of what groups keep: those of the ledger, for whatever is kept."""

import random

import pytest
import torch
import torchvision
from torchvision.models.regnet import BlockParams, RegNet

from qprune import shrink, swap, zoo
from qprune.budget.changing import drop, fitted
from qprune.budget.costs import Choice, carried_out, counted, model_costs
from qprune.budget.groups import find_groups
from qprune.budget.rules import prune_rules


def small_regnet():
    shape = BlockParams.from_init_params(depth=4, w_0=16, w_a=20, w_m=2.5, group_width=8, se_ratio=0.25)
    return RegNet(shape, num_classes=7)


NETS = {
    "resnet20": (lambda: zoo.create("resnet20", width=0.5), 32),
    "mobilenetv2": (lambda: zoo.create("mobilenetv2", width=0.25), 32),
    "unet": (lambda: zoo.create("unet", width=0.125), 32),
    "torchvision's resnet18": (lambda: torchvision.models.resnet18(num_classes=7), 64),
    "torchvision's RegNet": (lambda: small_regnet(), 32),
    "torchvision's mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=7), 64),
}


@pytest.fixture(scope="module", params=NETS)
def case(request):
    make, size = NETS[request.param]
    torch.manual_seed(0)
    net, example = make().eval(), torch.zeros(1, 3, size, size)
    groups = find_groups(net, example)
    ready = fitted(net, example, groups, groups)
    return net, example, groups, ready, model_costs(ready, example, groups)


def drawn(groups, seed, widths=(None, 2, 4, 8)):
    chance = random.Random(seed)
    dropped = {g: g.whole_steps(chance.randrange(g.channels + 1 - g.step)) if g.members else 0 for g in groups}
    return {group: Choice(dropped[group], chance.choice(widths)) for group in groups}


def test_nothing_chosen_costs_what_the_dense_network_does(case):
    net, example, groups, _, model = case
    assert model.costs(dict.fromkeys(groups, Choice())) == pytest.approx(counted(net, example), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_chosen_costs_what_the_ledger_says(case, seed):
    _, example, groups, ready, model = case
    point = drawn(groups, seed)
    assert model.costs(point) == pytest.approx(counted(carried_out(ready, point), example), rel=2e-3)


def test_what_is_counted_is_gone_from_the_shrunk_network(case):
    """Parameters of the network that shrinking leaves: nothing stays because neighbours kept other channels."""
    net, example, groups, _, model = case
    point = drawn(groups, 1, widths=(None,))
    able = {group: choice.dropped for group, choice in point.items() if choice.dropped}
    masked = swap(net, example, prune=prune_rules(able, "random", {"kind": "one-shot", "at": 0}))
    drop(masked, {group: count / group.channels for group, count in able.items()})
    small = shrink(masked, example)
    assert sum(p.numel() for p in small.parameters()) == pytest.approx(model.costs(point)["params"], rel=2e-2)
