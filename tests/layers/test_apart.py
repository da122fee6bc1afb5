import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d

import qprune
from qprune.errors import PlanError
from qprune.layers import Apart, ChannelMask, sites, take_apart

timm_layers = pytest.importorskip("timm.layers")

X = torch.randn(2, 4, 9, 13, generator=torch.Generator().manual_seed(1))
LIBRARIES = {
    "norm and act": lambda: timm_layers.BatchNormAct2d(4, act_layer=nn.SiLU),
    "norm, drop and act": lambda: timm_layers.BatchNormAct2d(4, drop_layer=nn.Dropout2d, act_layer=nn.Hardswish),
    "norm without act": lambda: timm_layers.BatchNormAct2d(4, apply_act=False),
    "same": lambda: timm_layers.Conv2dSame(4, 6, 3, stride=2),
    "same, dilated": lambda: timm_layers.Conv2dSame(4, 6, (5, 3), stride=(1, 3), dilation=2, groups=2, bias=False),
    "norm of channels": lambda: timm_layers.LayerNorm2d(4),
    "torchvision's": lambda: LayerNorm2d(4),
}
ALL = pytest.mark.parametrize("make", LIBRARIES.values(), ids=LIBRARIES)


def both(make):
    torch.manual_seed(0)
    before = make()
    after = nn.Sequential(copy.deepcopy(before))
    layer = after[0]
    take_apart(after)
    assert after[0] is layer
    return before, layer


@ALL
@pytest.mark.parametrize("training", [False, True])
def test_layer_of_a_library_taken_apart_computes_the_same_bits(make, training):
    before, after = both(make)
    assert isinstance(after, Apart)
    results = []
    for layer in (before.train(training), after.train(training)):
        torch.manual_seed(5)  # of the dropout
        results.append(layer(X))
    assert torch.equal(*results)
    assert all(
        torch.equal(*pair) for pair in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )


@ALL
def test_its_state_loads_by_the_names_that_it_had(make):
    before, after = both(make)
    for parameter in before.parameters():
        nn.init.normal_(parameter)
    after.load_state_dict(before.state_dict())
    again = pickle.loads(pickle.dumps(copy.deepcopy(after))).eval()
    again.load_state_dict(after.state_dict())
    assert torch.equal(again(X), before.eval()(X))


def test_what_the_code_around_it_asks_of_it_is_still_there():
    _, after = both(LIBRARIES["same"])
    assert after.weight is after.conv.weight
    assert after.stride == (2, 2)
    with pytest.raises(AttributeError, match="unheard_of"):
        _ = after.unheard_of


def test_a_class_of_the_users_own_is_left_alone():
    class Mine(timm_layers.BatchNormAct2d):
        def forward(self, x):
            return super().forward(x) + 1

    net = nn.Sequential(Mine(4))
    take_apart(net)
    assert type(net[0]) is Mine


def block():
    torch.manual_seed(0)
    norm = timm_layers.BatchNormAct2d(6, act_layer=nn.SiLU)
    nn.init.normal_(norm.bias)
    return nn.Sequential(timm_layers.Conv2dSame(4, 6, 3, stride=2), norm, nn.Conv2d(6, 5, 1)).double().eval()


@pytest.mark.parametrize(
    ("site", "name"),
    [
        ({"paths": ["1"], "at": "output"}, "1.norm.output"),
        ({"types": ["SiLU"], "at": "output"}, "1.act.output"),
        ({"types": ["Conv2d"], "at": "output", "skip": [-1]}, "0.conv.output"),
    ],
)
def test_its_parts_are_sites_and_lose_channels(site, name):
    rule = {"sites": [site], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}}
    net = qprune.swap(block(), X.double(), prune=[rule])
    (found,) = sites(net)
    assert found.name == name
    found.mask.keep[:3] = False
    small = qprune.shrink(net, X.double())
    assert (net(X.double()) - small(X.double())).abs().max() <= 1e-6
    assert small[2].in_channels == 3
    assert not any(isinstance(module, ChannelMask) for module in small.modules())


def test_a_pattern_that_matches_nothing_names_the_nearest():
    rule = {"sites": [{"types": ["BatchNorm2d"], "paths": ["3"], "at": "output"}], "sparsity": 0.5,
            "schedule": {"kind": "one-shot", "at": 1}}  # fmt: skip
    with pytest.raises(PlanError, match='No layer matches "3"'):
        qprune.swap(block(), X.double(), prune=[rule])
