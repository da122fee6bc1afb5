"""Networks that nobody wrote for this: torchvision's, with masks at the inputs of their convolutions."""

import pytest
import torch
from masked_nets import lively, parameters
from torch import nn
from torch.utils._pytree import tree_leaves

import qprune
from qprune.layers import sites
from qprune.shrinking import shrink_with_facts

torchvision = pytest.importorskip("torchvision")

X = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
INPUTS = {"types": ["Conv2d"], "at": "input", "skip": [0]}
PRUNE = {"sites": [INPUTS], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}}
QUANTIZE = [
    {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 0},
    {"sites": [INPUTS], "bits": 4, "start": 0},
]
FREE = ("resnet18", "mobilenet_v3_small", "squeezenet1_1")


def masked_at_random(name, **rules):
    torch.manual_seed(2)
    net = lively(getattr(torchvision.models, name)(weights=None, num_classes=7)).eval()
    net = qprune.swap(net, X, prune=[PRUNE], **rules)
    for site in sites(net):
        if site.mask is not None:
            site.mask.score.uniform_()
            site.mask.refresh(0.5)
    return net


def differences(net, small, x):
    with torch.no_grad():
        for one, other in zip(*(tree_leaves(each(x)) for each in (net, small)), strict=True):
            yield float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize("name", FREE)
def test_what_the_masks_drop_leaves_a_network(name):
    net = masked_at_random(name)
    facts = shrink_with_facts(net, X)
    assert facts.analysis.held == ()
    assert max(differences(net.double(), facts.net.double(), X.double())) < 1e-6
    kept = qprune.summary(net.float(), (3, 64, 48)).total.parameters_kept
    added = sum(module.out_channels for module in net.modules() if isinstance(module, nn.Conv2d))  # biases of constants
    assert parameters(facts.net) <= kept + added < parameters(net)


def test_a_network_that_moves_channels_about_says_where():
    net = masked_at_random("shufflenet_v2_x0_5")
    facts = shrink_with_facts(net, X)
    assert "view: the network's own code moves channels by number" in facts.analysis.held
    assert max(differences(net.double(), facts.net.double(), X.double())) < 1e-6
    assert parameters(facts.net) < parameters(net)


def test_a_quantized_network_passes_the_comparison():
    net = masked_at_random("resnet18", quantize=QUANTIZE)
    qprune.calibrate(net, [X])
    small = shrink_with_facts(net, X, fold=True).net
    assert parameters(small) < parameters(net) / 2
