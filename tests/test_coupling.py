"""Coupled masks: which sites are one group, what follows them, and that nothing is left to gather once they are cut."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import qprune
from qprune import zoo
from qprune.coupling import choose_apart, streams
from qprune.errors import PlanError
from qprune.flow import trace
from qprune.layers import Aligned, PrunedConv2d, sites
from qprune.network_plan import make_plan
from qprune.schedules import OneShot
from qprune.training import ScheduleDriver
from qprune.zoo import Add, Concat

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
RELUS = {"types": ["ReLU"], "at": "output"}
WEIGHTS = {"types": ["Conv2d"], "at": "weight"}
INPUTS = {"types": ["Conv2d"], "at": "input", "skip": [0]}
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


def conv(into, out, kernel=1, **options):
    return nn.Conv2d(into, out, kernel, **options)


def coupled(net, *selectors, x=X, **changes):
    """The network with coupled masks, which are chosen at random at step 0."""
    rule = {"sites": list(selectors), "sparsity": 0.5, "importance": "random", "couple": True}
    rule |= {"schedule": {"kind": "one-shot", "at": 0}} | changes
    net = qprune.swap(lively(net), x, prune=[rule])
    ScheduleDriver(net, x)
    return net.eval()


def lively(net):
    """Statistics and affine parameters as if it had been trained."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.bias.data):
                tensor.normal_(0, 0.5)
            for tensor in (layer.running_var, layer.weight.data):
                tensor.uniform_(0.5, 1.5)
    return net


def groups(net):
    """The groups as sets of sites, those of one site left out."""
    found = {site.mask.coupled for site in sites(net) if site.mask is not None}
    return {frozenset(group) for group in found if len(group) > 1}


def following(net):
    return {site.name for site in sites(net) if site.mask is not None and site.mask.tied}


def keeps(net, names):
    return [site.mask.keep for site in sites(net) if site.name in names]


def told(*arguments, **options):
    with pytest.raises(PlanError) as caught:
        coupled(*arguments, **options)
    return str(caught.value).splitlines()


# streams: what torch-pruning, which was written by others, removes together


def convs_removed_with(tp, graph, net, path):
    """The convolutions whose output channels go with those of one, by torch-pruning."""
    group = graph.get_pruning_group(net.get_submodule(path), tp.prune_conv_out_channels, idxs=[0])
    outs = ("ConvPruner.prune_out_channels", "DepthwiseConvPruner.prune_out_channels")
    names = {module: name for name, module in net.named_modules()}
    return {names[each.dep.target.module] for each in group if each.dep.handler.__qualname__ in outs}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "googlenet"])
def test_streams_are_what_torch_pruning_removes_together(name):
    tp = pytest.importorskip("torch_pruning")
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net = getattr(torchvision.models, name)(weights=None, num_classes=7, **options).eval()
    x = torch.randn(1, 3, 64, 64)
    flow = trace(net, x)
    found = streams(net, flow)
    convs = [path for path, layer in net.named_modules() if isinstance(layer, nn.Conv2d)]
    stream = {path: found.of_site(flow, path, "output") for path in convs}
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=x)
    for path in convs[:: 1 + len(convs) // 60]:
        alike = {other for other in convs if stream[other] == stream[path]}
        assert alike == convs_removed_with(tp, graph, net, path), path


def test_a_convolution_a_concatenation_and_an_image_begin_streams_of_their_own():
    net = Net(
        lambda net, x: net.c(net.joint(net.a(x), F.relu(net.b(x)) + net.a(x))),
        a=conv(3, 4), b=conv(3, 4), joint=Concat(), c=conv(8, 5),
    )  # fmt: skip
    flow = trace(net, X)
    found = streams(net, flow)
    of = {(path, side): found.of_site(flow, path, side) for path in "abc" for side in ("input", "output")}
    assert of["a", "input"] is of["b", "input"] is None
    assert of["a", "output"] == of["b", "output"]
    assert len({of["a", "output"], of["c", "input"], of["c", "output"]}) == 3


# whole streams go, and nothing is gathered


def mobilenet(**options):
    return zoo.create("mobilenetv2", width=0.25, **options)


def resnet18():
    return torchvision.models.resnet18(weights=None, num_classes=7)


def mobilenet_v2():
    return torchvision.models.mobilenet_v2(weights=None, num_classes=7, width_mult=0.5)


NETS = {
    "preactresnet18, rectifiers": (lambda: zoo.create("preactresnet18", width=0.25), [RELUS]),
    "preactresnet18, weights": (lambda: zoo.create("preactresnet18", width=0.25), [WEIGHTS]),
    "resnet20, rectifiers": (lambda: zoo.create("resnet20", shortcut="B"), [RELUS]),
    "resnet20, weights": (lambda: zoo.create("resnet20", shortcut="B"), [WEIGHTS]),
    "mobilenetv2": (mobilenet, MOBILE),
    "torchvision's resnet18, inputs": (resnet18, [INPUTS]),
    "torchvision's resnet18, weights": (resnet18, [WEIGHTS]),
    "torchvision's mobilenet_v2, inputs": (mobilenet_v2, [INPUTS]),
    "torchvision's mobilenet_v2, weights": (mobilenet_v2, [WEIGHTS]),
    "torchvision's mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=7), [INPUTS]),
}


def aligned(net):
    return [path for path, layer in net.named_modules() if isinstance(layer, Aligned)]


@pytest.mark.parametrize("name", NETS)
def test_a_shrunk_network_gathers_nothing_and_its_streams_are_half_as_wide(name):
    make, selectors = NETS[name]
    dense = make()
    net = coupled(dense, *selectors)
    for group in groups(net):
        first, *others = keeps(net, group)
        assert all(torch.equal(first, other) for other in others)
    small = qprune.shrink(net, X)
    assert aligned(small) == []
    with torch.no_grad():
        one, other = net.double()(X.double()), small.double()(X.double())
    assert torch.allclose(one, other, rtol=0, atol=1e-9 * float(one.abs().max()))
    flow = trace(dense, X)
    found = streams(dense, flow)
    in_groups = {found.of_site(flow, *site.rpartition(".")[::2]) for group in groups(net) for site in group}
    convs = {path: layer for path, layer in dense.named_modules() if isinstance(layer, nn.Conv2d)}
    widths = {
        path: (layer.out_channels, small.get_submodule(path).out_channels)
        for path, layer in convs.items()
        if found.of_site(flow, path, "output") in in_groups
    }
    assert len(widths) > 5
    assert all(after == before - before // 2 for before, after in widths.values())


def test_without_coupling_the_same_masks_are_gathered():
    assert aligned(qprune.shrink(coupled(zoo.create("resnet20", shortcut="B"), RELUS, couple=False), X))


@pytest.mark.parametrize("selectors", [[RELUS], [WEIGHTS], [INPUTS]], ids=["rectifiers", "weights", "inputs"])
def test_a_shortcut_that_pads_channels_is_picked_from_at_its_sum_alone(selectors):
    net = coupled(zoo.create("resnet20", width=0.5), *selectors)
    assert len(groups(net)) == 3
    small = qprune.shrink(net, X)
    assert aligned(small) == ["stage2.0.add", "stage3.0.add"]
    widths = [small.get_submodule(f"stage{stage}.2.conv2").out_channels for stage in (1, 2, 3)]
    assert widths == [4, 8, 16]
    with torch.no_grad():
        one, other = net.double()(X.double()), small.double()(X.double())
    assert torch.allclose(one, other, rtol=0, atol=1e-9 * float(one.abs().max()))


def test_what_no_mask_can_hold_is_masked_behind_the_sum_that_reads_it():
    net = coupled(zoo.create("resnet20", width=0.5), WEIGHTS)
    assert {"stage2.0.act2.output", "stage3.0.act2.output"} <= following(net)
    assert not any(name.endswith("act2.output") and "stage1" in name for name in following(net))


# groups, by hand


def two_branches(act=None, **layers):
    """A sum of two convolutions, rectified, and read by a third."""
    act = act or nn.ReLU()
    parts = {"a": conv(3, 6), "b": conv(3, 6), "add": Add(), "act": act, "c": conv(6, 4)} | layers
    return Net(lambda net, x: net.c(net.act(net.add(net.a(x), net.b(x)))), **parts)


def test_sites_on_both_sides_of_a_sum_are_one_group():
    selector = {"paths": ["a", "b"], "at": "weight"}
    net = coupled(two_branches(), selector)
    assert groups(net) == {frozenset({"a.weight", "b.weight"})}
    assert following(net) == set()
    a, b = keeps(net, {"a.weight", "b.weight"})
    assert torch.equal(a, b)
    assert int(a.sum()) == 3


def test_what_is_added_without_a_mask_follows():
    net = coupled(two_branches(), {"paths": ["a"], "at": "weight"})
    assert following(net) == {"b.output"}
    assert torch.equal(*keeps(net, {"a.weight", "b.output"}))
    assert qprune.shrink(net, X).b.out_channels == 3


def test_a_mask_behind_a_sum_needs_none_before_it():
    net = coupled(two_branches(), RELUS)
    assert following(net) == set()
    small = qprune.shrink(net, X)
    assert (small.a.out_channels, small.b.out_channels) == (3, 3)


def test_a_mask_that_follows_lies_behind_the_normalization_that_would_revive_channels():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm_a, self.norm_b = conv(3, 6), conv(3, 6), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
            self.c = conv(6, 4)

        def forward(self, x):
            return self.c(self.norm_a(self.a(x)) + self.norm_b(self.b(x)))

    net = coupled(Normed(), {"paths": ["norm_a"], "at": "output"})
    assert following(net) == {"norm_b.output"}


def test_a_normalization_behind_a_sum_follows():
    net = two_branches(act=nn.BatchNorm2d(6))
    net = coupled(net, {"paths": ["a", "b"], "at": "weight"})
    assert following(net) == {"act.output"}


def test_factors_of_a_product_are_one_group():
    def run(net, x):
        y = net.a(x)
        return net.c(y * torch.sigmoid(net.gate(F.adaptive_avg_pool2d(y, 1))))

    net = Net(run, a=conv(3, 6), gate=conv(6, 6), c=conv(6, 4))
    net = coupled(net, {"paths": ["a", "gate"], "at": "weight"})
    assert groups(net) == {frozenset({"a.weight", "gate.weight"})}
    small = qprune.shrink(net, X)
    assert (small.a.out_channels, small.gate.out_channels) == (3, 3)
    assert aligned(small) == []


def test_sites_along_depthwise_convolutions_are_one_group():
    layers = [conv(3, 6), nn.ReLU6(), conv(6, 6, 3, groups=6), nn.ReLU6(), conv(6, 5)]
    net = coupled(nn.Sequential(*layers), {"types": ["ReLU6"], "at": "output"})
    assert groups(net) == {frozenset({"1.output", "3.output"})}


def test_other_groups_of_convolutions_are_no_depthwise_ones():
    layers = [conv(4, 8), nn.ReLU(), conv(8, 16, groups=8), nn.ReLU(), conv(16, 16, groups=4), nn.ReLU(), conv(16, 5)]
    x = torch.randn(2, 4, 5, 7)
    (line,) = told(nn.Sequential(*layers), RELUS, x=x)
    assert line.startswith("couple = true has no effect")


def test_a_layer_that_runs_twice_makes_one_stream():
    net = Net(
        lambda net, x: net.c(F.relu(net.twice(net.a(x)))) + net.d(F.relu(net.twice(net.b(x)))),
        a=conv(3, 4), b=conv(3, 4), twice=conv(4, 6), c=conv(6, 5), d=conv(6, 5),
    )  # fmt: skip
    net = coupled(net, {"paths": ["c", "d"], "at": "input"})
    assert groups(net) == {frozenset({"c.input", "d.input"})}


def test_a_sum_that_runs_twice_keeps_streams_apart():
    def run(net, x):
        y = net.act(net.add(net.a(x), net.b(x)))
        return net.e(net.act(net.add(net.c(y), net.d(y))))

    layers = {"a": conv(3, 6), "b": conv(3, 6), "c": conv(6, 5), "d": conv(6, 5), "e": conv(5, 4)}
    net = Net(run, add=Add(), act=nn.ReLU(), **layers)
    net = coupled(net, {"paths": ["a", "b", "c", "d"], "at": "weight"})
    assert groups(net) == {frozenset({"a.weight", "b.weight"}), frozenset({"c.weight", "d.weight"})}


def test_linear_layers_on_tokens_share_their_features():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.c(self.a(x) + self.b(x))

    x = torch.randn(2, 6, 6)  # as many tokens as features
    net = coupled(Tokens(), {"paths": ["a", "b"], "at": "weight"}, x=x)
    assert groups(net) == {frozenset({"a.weight", "b.weight"})}


# what is refused


def test_a_rule_that_couples_nothing_is_told_so():
    layers = [conv(3, 6), nn.ReLU(), conv(6, 5), nn.ReLU(), conv(5, 4)]
    assert told(nn.Sequential(*layers), RELUS) == [
        "couple = true has no effect: no two of the rule's sites have the same channels, and none is of a sum or a "
        "product; leave it out (prune[0].couple in swap)."
    ]


def test_coupled_sites_have_one_sparsity():
    assert told(two_branches(), {"paths": ["a", "b"], "at": "weight"}, sparsity={"a": 0.5, "b": 0.25}) == [
        '"a.weight" and "b.weight" share their channels, and so one sparsity; received 0.5 and 0.25 '
        "(prune[0].couple in swap)."
    ]


def test_a_mask_of_another_rule_on_the_same_channels_is_refused():
    shot = {"kind": "one-shot", "at": 1}
    rules = [
        {"sites": [{"paths": ["a"], "at": "weight"}], "sparsity": 0.5, "importance": "weight-l1", "couple": True},
        {"sites": [{"paths": ["act"], "at": "output"}], "sparsity": 0.5},
    ]
    with pytest.raises(PlanError) as caught:
        qprune.swap(two_branches(), X, prune=[rule | {"schedule": shot} for rule in rules])
    assert str(caught.value) == (
        '"act.output" has a mask by prune[1], and its channels are those that "a.weight" shares; choose both in one '
        "coupled rule, or exclude one (prune[0].couple in swap)."
    )


def test_a_mask_of_a_layer_s_own_on_the_same_channels_is_refused():
    net = two_branches(b=PrunedConv2d(3, 6, 1, at="output", schedule=OneShot(0.5, at=1)))
    (line,) = told(net, {"paths": ["a"], "at": "weight"})
    assert line.startswith('"b.output" has a mask of its own, and its channels are those that "a.weight" shares;')


def test_a_stream_that_no_mask_can_hold_is_refused():
    class Scaled(nn.Module):
        def forward(self, x):
            return torch.cat([x[:, :3], x[:, 3:]], 1)

    net = Net(lambda net, x: net.c(net.a(x) + net.scaled(net.b(x))),
              a=conv(3, 6), b=conv(3, 6), scaled=Scaled(), c=conv(6, 4))  # fmt: skip
    assert told(net, {"paths": ["a"], "at": "weight"}) == [
        '"a.weight" would drop channels that cat (cat, operation 4) makes too, where no mask can be; exclude them from '
        "the coupled rule (prune[0].couple in swap)."
    ]


def test_channels_of_the_network_s_output_stay():
    class Enhancer(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(3, 6), conv(6, 6), conv(6, 6)

        def forward(self, x):
            y = self.a(x)
            y = y + self.b(y)
            return y + self.c(y)

    assert told(Enhancer(), {"paths": ["b", "c"], "at": "input"}) == [
        '"b.input" and 1 more would drop channels of the network\'s own output, which cannot be pruned; exclude them '
        "(prune[0].couple in swap)."
    ]


@pytest.mark.parametrize(
    ("make", "couple", "apart"),
    [
        (torchvision.models.resnet18, False, True),
        (torchvision.models.resnet18, True, False),
        (torchvision.models.vgg11_bn, False, False),  # nothing is added there
    ],
)
def test_masks_choose_apart_where_channels_are_added_and_nothing_couples_them(make, couple, apart):
    rule = {"sites": [INPUTS], "sparsity": 0.5, "couple": couple, "schedule": {"kind": "one-shot", "at": 1}}
    net = qprune.swap(make(weights=None), X, prune=[rule])
    flow = trace(net, X)
    names = [entry.site for entry in make_plan(net, flow, steps=10).sites]
    assert choose_apart(net, flow, names) is apart
    assert not choose_apart(net, flow, names[:1])
