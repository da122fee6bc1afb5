"""Torch-Pruning as an outside check: where both can remove the same channels, they leave the same network."""

import copy

import pytest
import torch
from masked_nets import assert_same, lively, masked, outputs, parameters, shrunk
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")  # its own
tp = pytest.importorskip("torch_pruning")
X = torch.randn(2, 3, 12, 10)


def layers_of(channels, *, norm=True, kernel=3):
    layers = []
    for into, out in zip((3, *channels), channels, strict=False):
        layers += [nn.Conv2d(into, out, kernel, bias=not norm), *([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]
    return layers


CHAINS = {
    "convolutions": lambda: nn.Sequential(*layers_of((6, 8, 5))),
    "without normalization": lambda: nn.Sequential(*layers_of((6, 8, 5), norm=False)),
    "classifier": lambda: nn.Sequential(
        *layers_of((6, 8)), nn.Flatten(), nn.Linear(8 * 8 * 6, 7), nn.ReLU(), nn.Linear(7, 4)
    ),
    "pooled": lambda: nn.Sequential(*layers_of((6, 8)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    "depthwise": lambda: nn.Sequential(
        *layers_of((6,)), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1)
    ),
}


def dropped_by(net):
    """For each layer but the last the channels to drop; of those that read others by group, none of their own."""
    weighted = [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for name in weighted[:-1]:
        layer = net.get_submodule(name)
        if getattr(layer, "groups", 1) == 1:
            yield name, list(range(1, layer.weight.shape[0], 2))


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_both_leave_the_same_network(make):
    net = lively(make()).eval()
    theirs, ours = copy.deepcopy(net), copy.deepcopy(net)
    graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=X)
    for name, dropped in dropped_by(net):
        layer = theirs.get_submodule(name)
        prune = tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else tp.prune_conv_out_channels
        graph.get_pruning_group(layer, prune, idxs=dropped).prune()
    # what they remove contributes nothing once the activation behind it is masked
    names = [name for name, _ in net.named_modules()]
    for name, dropped in dropped_by(net):
        after = next(each for each in names[names.index(name) :] if isinstance(net.get_submodule(each), nn.ReLU))
        count = net.get_submodule(name).weight.shape[0]
        masked(ours.get_submodule(after), [c for c in range(count) if c not in dropped], channels=count)
        if len(ours) > 3 and getattr(net[3], "groups", 1) > 1 and after == "2":
            masked(ours[5], [c for c in range(count) if c not in dropped], channels=count)
    small = shrunk(ours, X)
    assert parameters(small) == parameters(theirs)
    assert [tuple(each.shape) for each in small.parameters()] == [tuple(each.shape) for each in theirs.parameters()]
    assert_same(outputs(theirs, X), outputs(small, X))
