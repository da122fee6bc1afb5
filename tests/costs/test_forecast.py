import torch
from torch import nn

from qprune.costs import carry_out, forecast
from qprune.flow import trace
from qprune.layers import PrunedConv2d, QuantConv2d
from qprune.network_plan import make_plan
from qprune.schedules import Inherited, OneShot, QuantizeFrom


def foretold(net: nn.Module) -> dict[str, str]:
    example = torch.zeros(2, 3, 5, 7)
    plan = make_plan(net, trace(net, example), steps=10)
    return forecast(net, carry_out(net, plan), (3, 5, 7))


def two(schedule: OneShot | Inherited) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), PrunedConv2d(8, 4, 1, schedule=schedule))


def test_parameters_and_macs_before_and_after():
    cost = foretold(two(OneShot(sparsity=0.75, at=3)))
    assert cost["parameters"] == f"{8 * 3 + 8 + 4 * 8 + 4} -> {2 * 3 + 2 + 4 * 2 + 4}"
    assert cost["MACs"] == f"{(24 + 32) * 35 / 1000:.2f} k -> {(6 + 8) * 35}"


def test_inherited_masks_count_as_they_are():
    net = two(Inherited())
    net[2].input_mask.keep[[1, 5, 6]] = False
    assert foretold(net)["parameters"] == f"68 -> {5 * 3 + 5 + 4 * 5 + 4}"


def test_quantizers_count_as_if_they_acted():
    net = nn.Sequential(QuantConv2d(3, 8, 1, bias=False, weight_bits=4, act_bits=None, schedule=QuantizeFrom(5)))
    assert foretold(net)["packed"] == f"{24 * 4} B -> {24 // 2 + 8 * 4} B"


def test_normalizations_tied_to_a_weight_mask_shrink_with_it():
    import qprune

    net = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1, bias=False))
    sites = [{"paths": ["0"], "at": "weight"}]
    rule = {"sites": sites, "sparsity": 0.5, "importance": "weight-l1", "schedule": {"kind": "one-shot", "at": 3}}
    swapped = qprune.swap(net, torch.zeros(2, 3, 5, 7), prune=[rule])
    assert foretold(swapped)["parameters"] == f"{24 + 16 + 32} -> {12 + 8 + 16}"


def test_the_network_is_not_changed():
    net = two(OneShot(sparsity=0.75, at=3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    foretold(net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def left_apart(couple):
    """MACs that are foretold of a block with two masks of channels that are added."""
    import qprune

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = (nn.Conv2d(8, 8, 1, bias=False) for _ in range(3))

        def forward(self, x):
            y = self.first(x)
            return self.last(y + self.second(y))

    rule = {"sites": [{"paths": ["second", "last"], "at": "input"}], "sparsity": 0.5, "couple": couple}
    net = qprune.swap(Block(), torch.zeros(2, 8, 5, 7), prune=[rule | {"schedule": {"kind": "one-shot", "at": 3}}])
    plan = make_plan(net, trace(net, torch.zeros(2, 8, 5, 7)), steps=10)
    return forecast(net, carry_out(net, plan), (8, 5, 7), carry_out(net, plan, agreeing=False))["MACs"]


def test_masks_of_a_sum_that_do_not_agree_leave_more_which_is_told():
    # second reads four channels and last the four others, so first makes all of them
    assert (4 * 8 + 4 * 4 + 8 * 4) * 35 == 2_800
    assert (8 * 8 + 4 * 4 + 8 * 4) * 35 == 3_920
    assert left_apart(couple=False).startswith("6.72 k -> 2.8 k (about 3.92 k if masks that meet in sums do not agree")


def test_coupled_masks_leave_what_is_counted():
    assert left_apart(couple=True) == "6.72 k -> 2.8 k"
