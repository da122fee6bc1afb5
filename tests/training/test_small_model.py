"""The file of a shrunk network: what it holds, and that the network it was cut from opens with it."""

import pytest
import torch
from torch import nn

import qprune
from qprune import zoo
from qprune.layers import PrunedConv2d, sites
from qprune.shrinking import rebuild, shrink
from qprune.training import load_model, save_small
from qprune.training.checkpoint import load_state

ABOUT = {
    "spec": "format = 1",
    "classes": ["a", "b"],
    "shape": [3, 5, 7],
    "palette": [],
    "step": 4,
    "scores": {"loss": 0.5},
}


def chain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), PrunedConv2d(8, 5, 1))


@pytest.mark.parametrize("fold", [False, True])
def test_a_network_built_anew_opens_it(tmp_path, fold):
    net, x = chain(), torch.randn(2, 3, 5, 7)
    net[3].input_mask.keep[[0, 2, 6]] = False
    small = shrink(net, x, fold=fold)
    save_small(tmp_path / "small.pt", ABOUT | {"state": net.state_dict()}, net, small)
    content = load_model(tmp_path / "small.pt")
    assert {name: content[name] for name in ABOUT} == ABOUT
    again = chain().eval()
    rebuild(again, content["cuts"])
    load_state(again, content["state"], "small.pt")
    assert torch.equal(again(x), small(x))
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in net.parameters())


def test_of_a_network_that_trains_more_the_rest_is_kept(tmp_path):
    """A generator is cut; its discriminator is written as it is, and the whole opens again, twice."""
    rule = {
        "sites": [{"types": ["Conv2d"], "at": "input", "paths": ["generator.*"], "skip": [0]}],
        "sparsity": 0.5,
        "schedule": {"kind": "one-shot", "at": 1},
    }
    x = torch.randn(1, 3, 256, 256)
    plain = zoo.create("pix2pix", width=0.0625, width_discriminator=0.0625)
    net, again = (qprune.swap(plain, x, prune=[rule]).eval() for _ in range(2))
    for site in sites(net):
        if site.mask is not None and not site.mask.tied:
            site.mask.keep[:2] = False
    small = shrink(net, x, fold=True)
    save_small(tmp_path / "small.pt", ABOUT | {"state": net.state_dict()}, net, small)
    content = load_model(tmp_path / "small.pt")
    assert all(path.startswith("generator.") for path in content["cuts"]["cuts"])
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    rebuild(again, content["cuts"])
    load_state(again, content["state"], "small.pt")
    assert torch.equal(again.generator(x), small(x))
    for name, value in net.discriminator.state_dict().items():
        assert torch.equal(again.discriminator.state_dict()[name], value)
    save_small(tmp_path / "again.pt", content, again, shrink(again, x))
    assert load_model(tmp_path / "again.pt")["cuts"]["folds"] == content["cuts"]["folds"]
