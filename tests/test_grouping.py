"""Masks around convolutions of groups keep as many channels of each group, and nothing dead is left between them."""

import pytest
import torch
import torchvision
from torch import nn

import qprune
from qprune.flow import trace
from qprune.grouping import divide_masks
from qprune.layers import PrunedConv2d, sites
from qprune.shrinking import shrink
from qprune.training import ScheduleDriver

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
RELUS = {"types": ["ReLU"], "at": "output"}


def chain(*layers):
    made = [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1].out_channels
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), *layers, nn.ReLU(), nn.Conv2d(made, 5, 1))


def pruned(net, x=X, sparsity=0.5, **rule):
    rule = {"sites": [RELUS], "sparsity": sparsity, "importance": "random"} | rule
    net = qprune.swap(net, x, prune=[rule | {"schedule": {"kind": "one-shot", "at": 0}}])
    ScheduleDriver(net, x)
    return net.eval()


def groups(net):
    return {site.name: site.mask.groups for site in sites(net) if site.mask is not None}


def kept(net):
    return {
        site.name: site.mask.keep.view(site.mask.groups, -1).sum(1).tolist()
        for site in sites(net)
        if site.mask is not None
    }


def test_as_many_channels_are_kept_of_each_group_that_is_read_and_made():
    net = pruned(chain(nn.Conv2d(12, 18, 3, groups=3)))
    assert kept(net) == {"1.output": [2, 2, 2], "3.output": [3, 3, 3]}


def test_nothing_that_is_dropped_stays_for_the_sake_of_another_group():
    net = pruned(chain(nn.Conv2d(12, 18, 3, groups=3)))
    small = shrink(net, X)
    assert small[2].weight.shape == (9, 2, 3, 3)
    torch.testing.assert_close(small(X), net(X))


def test_channels_of_a_depthwise_convolution_are_chosen_among_all():
    assert set(groups(pruned(chain(nn.Conv2d(12, 12, 3, groups=12)))).values()) == {1}


def test_what_a_depthwise_convolution_makes_of_each_channel_is_one_group():
    assert groups(pruned(chain(nn.Conv2d(12, 24, 3, groups=12)))) == {"1.output": 1, "3.output": 12}


def test_one_stream_between_convolutions_of_other_groups_falls_into_parts_of_both():
    layers = nn.Conv2d(12, 24, 3, groups=2), nn.ReLU(), nn.Conv2d(24, 6, 1, groups=3)
    assert groups(pruned(chain(*layers)))["3.output"] == 6


def test_the_plan_says_how_many_are_kept():
    net = qprune.swap(
        chain(nn.Conv2d(12, 18, 3, groups=3)),
        X,
        prune=[{"sites": [RELUS], "sparsity": 0.6, "schedule": {"kind": "one-shot", "at": 1}}],
    )
    plan = ScheduleDriver(net, X).plan
    assert [entry.kept for entry in plan.sites] == [6, 9]  # of 4 and of 6 each, not 5 of 12 and 8 of 18


def test_coupled_masks_agree_in_each_group():
    net = chain(nn.Conv2d(12, 18, 3, groups=3), nn.BatchNorm2d(18))
    norms = {"types": ["BatchNorm2d", "Conv2d"], "paths": ["2", "3"], "at": "output"}
    net = pruned(net, sites=[RELUS, norms], couple=True)
    masks = {site.name: site.mask for site in sites(net) if site.mask is not None}
    assert masks["2.output"].coupled == ("2.output", "3.output", "4.output")
    assert kept(net)["2.output"] == kept(net)["3.output"] == kept(net)["4.output"] == [3, 3, 3]


def test_a_mask_that_loses_whole_groups_goes_on_with_those_that_stay():
    conv = PrunedConv2d(3, 12, 3, at="output")
    mask = conv.output_mask
    mask.groups = 4
    mask.select(torch.tensor([0, 1, 6, 7, 9, 11]))
    assert (mask.channels, mask.groups) == (6, 3)
    mask.select(torch.tensor([0, 1, 2]))
    assert (mask.channels, mask.groups) == (3, 1)


def test_each_layer_of_regnet_chooses_in_its_groups():
    net = torchvision.models.regnet_y_400mf().eval()
    activations = [name for name, layer in net.named_modules() if isinstance(layer, nn.ReLU)]
    net = pruned(net, torch.zeros(1, 3, 64, 64), sites=[{"paths": activations, "at": "output"}])
    assert groups(net)["trunk_output.block2.block2-0.f.b.2.output"] == 13  # 104 channels, 8 of each group
    assert groups(net)["trunk_output.block2.block2-0.f.se.activation.output"] == 1


@pytest.mark.parametrize("layer", [nn.Conv2d(12, 18, 3), nn.Conv2d(12, 12, 3, groups=12)], ids=["dense", "depthwise"])
def test_networks_without_convolutions_of_groups_are_not_followed_for_it(monkeypatch, layer):
    monkeypatch.setattr("qprune.grouping.streams", lambda *_: pytest.fail("followed"))
    divide_masks(net := chain(layer), trace(net, X))
