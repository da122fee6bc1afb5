"""Groups: what coupling finds by the rules of the house, for whatever network, and every layer with weights in one."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import qprune
from qprune import zoo
from qprune.budget import Group, find_groups
from qprune.layers import sites
from qprune.zoo import deployed

X = torch.zeros(1, 3, 64, 64)
RELUS = {"types": ["ReLU"], "at": "output"}
PROJECTIONS = {"types": ["BatchNorm2d"], "paths": ["*.post_residual.*"], "at": "output"}
MOBILE = [{"types": ["ReLU6"], "at": "output"}, PROJECTIONS]


class Net(nn.Module):
    """Layers by name, and a forward written in the test."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.run(self, x)


def members(net, x=X):
    return [group.members for group in find_groups(net, x) if group.members]


def coupled_by(net, *selectors):
    """The groups that a coupled rule makes, those of one site too."""
    rule = {"sites": list(selectors), "sparsity": 0.5, "couple": True, "schedule": {"kind": "one-shot", "at": 0}}
    masks = {site.name: site.mask for site in sites(qprune.swap(net, X, prune=[rule])) if site.mask is not None}
    chosen = {name: mask.coupled or (name,) for name, mask in masks.items() if not mask.ranking.follows}
    return {frozenset(group) for group in chosen.values()}


@pytest.mark.parametrize(
    ("name", "options", "selectors"),
    [
        ("resnet20", {"shortcut": "B"}, [RELUS]),
        ("resnet20", {"shortcut": "A"}, [RELUS]),
        ("preactresnet18", {}, [RELUS]),
        ("mobilenetv2", {}, MOBILE),
    ],
)
def test_groups_are_those_of_a_coupled_rule(name, options, selectors):
    net = zoo.create(name, width=0.25, **options)
    ours = {frozenset(f"{path}.output" for path in group) for group in members(net)}
    assert ours == coupled_by(net, *selectors)


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "unet", "vgg7", "densenet121", "frrn_b", "cyclegan"])
def test_every_layer_with_weights_is_in_one_group(name):
    net = deployed(zoo.create(name, width=0.25))
    weights = [path for group in find_groups(net, X) for path in group.weights]
    layers = [
        path for path, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    assert sorted(weights) == sorted(layers)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "squeezenet1_1"])
def test_groups_of_networks_by_others_can_each_be_masked(name):
    net = getattr(torchvision.models, name)(weights=None, num_classes=7).eval()
    found = find_groups(net, X)
    for group in [group for group in found if group.members][:: 1 + len(found) // 4]:
        rule = {"sites": [{"paths": list(group.members), "at": "output"}], "sparsity": 0.5, "couple": group.coupled}
        pruned = qprune.swap(net, X, prune=[rule | {"schedule": {"kind": "one-shot", "at": 0}}])
        own = {site.name for site in sites(pruned) if site.mask is not None and not site.mask.ranking.follows}
        assert own == {f"{path}.output" for path in group.members}


def test_no_channel_of_the_networks_own_output_can_be_dropped():
    net = Net(
        lambda n, x: n.out(n.act(n.conv(x))).mean((2, 3)),
        conv=nn.Conv2d(3, 5, 3),
        act=nn.ReLU(),
        out=nn.Conv2d(5, 7, 1),
    )
    groups = find_groups(net, X)
    assert groups == (Group("act.output", ("act",), ("conv",), 5), Group("out.weight", (), ("out",), 7))


def test_a_rectifier_that_runs_twice_leaves_it_to_the_normalizations():
    def run(net, x):
        return net.out(net.act(net.norm2(net.conv2(net.act(net.norm1(net.conv1(x)))))))

    layers = {"conv1": nn.Conv2d(3, 5, 3), "norm1": nn.BatchNorm2d(5), "conv2": nn.Conv2d(5, 6, 3)}
    net = Net(run, **layers, norm2=nn.BatchNorm2d(6), act=nn.ReLU(), out=nn.Conv2d(6, 7, 1))
    assert members(net) == [("norm1",), ("norm2",)]


def test_a_function_in_place_of_the_rectifier_leaves_it_to_the_layer():
    net = Net(lambda n, x: n.out(F.relu(n.conv(x))), conv=nn.Conv2d(3, 5, 3), out=nn.Conv2d(5, 7, 1))
    assert members(net) == [("conv",)]


def test_parts_of_a_concatenation_are_groups_unless_it_is_normalized():
    def run(net, x):
        return net.out(net.behind(torch.cat([net.a(x), net.b(x)], 1)))

    layers = {"a": nn.Conv2d(3, 5, 1), "b": nn.Conv2d(3, 6, 1), "out": nn.Conv2d(11, 7, 1)}
    assert members(Net(run, **layers, behind=nn.Identity())) == [("a",), ("b",)]
    assert members(Net(run, **layers, behind=nn.BatchNorm2d(11))) == [("behind",)]


def test_titles_say_how_many_more_sites_there_are():
    assert Group("a.output", ("a", "b"), ("c",), 4).title == "a.output +1"
    assert Group("c.weight", (), ("c",), 4).title == "c.weight"


def test_channels_around_a_convolution_of_groups_are_dropped_in_steps():
    net = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 18, 3, groups=3), nn.ReLU(), nn.Conv2d(18, 7, 1))
    assert [(group.channels, group.step) for group in find_groups(net, X)] == [(12, 3), (18, 3), (7, 1)]
