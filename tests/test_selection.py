import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from qprune import zoo
from qprune.assemble import swap
from qprune.errors import PlanError
from qprune.flow import trace
from qprune.layers import Compressed, PrunedConv2d, sites
from qprune.schedules import Inherited, OneShot, QuantizeFrom
from qprune.selection import choose
from qprune.spec import PruneRule, QuantizeRule, Selector
from qprune.zoo import Add

X = torch.zeros(2, 3, 8, 10)
CIFAR = torch.zeros(2, 3, 32, 32)
SHOT = OneShot(sparsity=0.5, at=3)


class Net(nn.Module):
    """Two blocks of conv, norm and act, a shared activation that runs twice, and a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.a = nn.ModuleDict({"conv": nn.Conv2d(3, 6, 3), "norm": nn.BatchNorm2d(6), "act": nn.ReLU()})
        self.b = nn.ModuleDict({"conv": nn.Conv2d(6, 5, 3), "norm": nn.BatchNorm2d(5), "group": nn.GroupNorm(1, 5)})
        self.twice = nn.ReLU()
        self.unused = nn.Conv2d(4, 4, 1)
        self.classifier = nn.Linear(5, 7)

    def forward(self, x):
        x = self.a["act"](self.a["norm"](self.a["conv"](x)))
        x = self.twice(self.b["group"](self.b["norm"](self.b["conv"](self.twice(x)))))
        return self.classifier(x.mean((2, 3)))


def at(side, *types, paths=(), skip=(), exclude=()):
    return Selector(types=types, paths=paths, at=side, skip=skip, exclude=exclude)


def prune(*selectors, exclude=(), schedule=SHOT, importance=None):
    weights = selectors[0].at == "weight"
    return PruneRule(selectors, schedule, importance or ("weight-l1" if weights else "activation-l1"), exclude=exclude)


def quantize(*selectors, exclude=(), **options):
    return QuantizeRule(selectors, schedule=QuantizeFrom(2), exclude=exclude, **({"bits": 4} | options))


def chosen(*selectors, net=None, **options):
    net = net or Net()
    fillings, mistakes = choose(
        net, trace(net, X), [prune(*selectors, **options)], [], numerics="default", origin="test"
    )
    assert mistakes == []
    return [f"{f.path}.{f.side}" for f in fillings]


def mistakes(*rules, net=None, x=X):
    net = net or Net()
    pruning = [rule for rule in rules if isinstance(rule, PruneRule)]
    quantizing = [rule for rule in rules if isinstance(rule, QuantizeRule)]
    return choose(net, trace(net, x), pruning, quantizing, numerics="default", origin="mine")[1]


# what is chosen


def test_types_and_paths_choose_together():
    assert chosen(at("input", "Conv2d", paths=("?.*",))) == ["a.conv.input", "b.conv.input"]
    assert chosen(at("output", paths=("*.norm",))) == ["a.norm.output", "b.norm.output"]
    assert chosen(at("output", "BatchNorm2d", "ReLU", exclude=("twice",))) == [
        "a.norm.output",
        "a.act.output",
        "b.norm.output",
    ]


def test_a_base_class_chooses_its_subclasses():
    class Mine(nn.Conv2d):
        pass

    assert chosen(at("input", "Conv2d", skip=(1,)), net=nn.Sequential(Mine(3, 4, 1), nn.Conv2d(4, 2, 1))) == ["0.input"]


def test_matches_are_in_data_flow_order_and_skip_counts_them():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1), nn.Conv2d(6, 2, 1))
    net = nn.Sequential(*net, nn.Conv2d(2, 2, 1))
    assert chosen(at("input", "Conv2d", skip=(0, -1)), net=net) == ["1.input", "2.input", "3.input"]

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Conv2d(5, 4, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x):
            return self.second(self.first(x))

    assert chosen(at("input", "Conv2d"), net=Backwards()) == ["first.input", "second.input"]
    assert chosen(at("input", "Conv2d", skip=(0,)), net=Backwards()) == ["second.input"]


def test_selectors_of_one_rule_are_united():
    assert chosen(at("output", "ReLU", paths=("a.*",)), at("output", paths=("a.act", "a.norm"))) == [
        "a.act.output",
        "a.norm.output",
    ]


def test_excluded_layers_are_left_out_before_skip_counts():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 2, 1))
    assert chosen(at("input", "Conv2d", skip=(0,)), net=net, exclude=("0",)) == ["2.input"]


def test_weights_may_run_twice():
    conv = nn.Conv2d(3, 3, 1)
    assert chosen(at("weight", "Conv2d", skip=(1,)), net=nn.Sequential(conv, conv, nn.Conv2d(3, 2, 1))) == ["0.weight"]


RELU_OUT, CONV_W = at("output", "ReLU"), at("weight", "Conv2d")
COUNTS = {
    "densenet121": ([RELU_OUT, at("output", "BatchNorm2d", paths=("transition*",))], [CONV_W], 120, 120),
    "mobilenetv2": (
        [at("output", "ReLU6"), at("output", "BatchNorm2d", paths=("*.post_residual.*",))],
        [at("weight", "Conv2d", skip=(-1,))],
        53,
        53,
    ),
    "preactresnet18": ([RELU_OUT], [CONV_W], 17, 20),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_numbers_of_pruned_sites(name):
    activations, weights, count_a, count_w = COUNTS[name]
    net = zoo.create(name, width=0.25)
    flow = trace(net, CIFAR)
    for selectors, count in ((activations, count_a), (weights, count_w)):
        fillings, wrong = choose(net, flow, [prune(*selectors)], [], numerics="default", origin=name)
        assert (len(fillings), wrong) == (count, [])


@pytest.mark.parametrize(
    ("name", "activations", "count_a", "count_w"),
    [
        ("densenet121", [RELU_OUT, at("output", "AvgPool2d", paths=("transition*",))], 120, 121),
        ("mobilenetv2", COUNTS["mobilenetv2"][0], 53, 54),
        ("preactresnet18", [RELU_OUT], 17, 21),
    ],
)
def test_published_numbers_of_quantized_sites(name, activations, count_a, count_w):
    weights = [CONV_W] + [at("weight", "Linear")] * (name != "mobilenetv2")
    net = zoo.create(name, width=0.25)
    rules = [quantize(*activations), quantize(*weights, per="channel")]
    fillings, wrong = choose(net, trace(net, CIFAR), [], rules, numerics="default", origin=name)
    assert wrong == []
    assert [f.side for f in fillings].count("weight") == count_w
    assert len(fillings) == count_a + count_w


# options


def test_options_of_a_rule_reach_its_compressors():
    net = swap(
        Net(),
        X,
        [PruneRule((at("input", "Conv2d", paths=("b.*",)),), SHOT, "activation-l0", multiple_of=4)],
        [quantize(at("weight", "Conv2d", paths=("b.*",)), bits=3, per="channel", gradient="clipped"),
         quantize(at("input", "Conv2d", paths=("b.*",)), bits=5, symmetric=True)],
        numerics="paper",
    )  # fmt: skip
    mask, weight, act = net.b.conv.input_mask, net.b.conv.weight_quant, net.b.conv.input_quant
    assert (mask.importance, mask.multiple_of, mask.schedule) == ("activation-l0", 4, SHOT)
    assert (weight.bits, weight.channels, weight.symmetric, weight.gradient, weight.numerics) == (
        3,
        5,
        True,
        "clipped",
        "paper",
    )
    assert (act.bits, act.channels, act.symmetric, act.gradient, act.numerics) == (5, None, True, "straight", "paper")
    assert act.schedule == QuantizeFrom(2)


def test_activation_quantizers_are_asymmetric_unless_told():
    net = swap(Net(), X, quantize=[quantize(at("input", "Linear"))])
    assert net.classifier.input_quant.symmetric is False


# refusals


def test_a_pattern_without_match_names_its_nearest_neighbour():
    assert mistakes(prune(at("input", paths=("*.cnv",)))) == [
        'No layer matches "*.cnv". Nearest: "*.conv" (2 layers) (prune[0].sites[0] in mine).'
    ]
    assert mistakes(quantize(at("input", "Conv2d", paths=("a.convs",)))) == [
        'No layer matches "a.convs". Nearest: "a.conv" (1 layer) (quantize[0].sites[0] in mine).'
    ]
    assert mistakes(quantize(at("output", "ReLU", paths=("zzzz",)))) == [
        'No layer matches "zzzz". One of them is "a.act" (quantize[0].sites[0] in mine).'
    ]


def test_each_of_several_patterns_must_match():
    assert len(mistakes(prune(at("output", "BatchNorm2d", paths=("a.*", "b.norn"))))) == 1


def test_an_unknown_type_names_its_nearest_neighbour():
    assert mistakes(prune(at("input", "Conv2D"))) == [
        "The network has no layer of type 'Conv2D'. Nearest: \"Conv2d\" (prune[0].sites[0] in mine)."
    ]
    assert mistakes(prune(at("output", "ReLU", "Xyz", exclude=("twice",)))) == [
        "The network has no layer of type 'Xyz'. It has BatchNorm2d, Conv2d, GroupNorm, Linear, ReLU "
        "(prune[0].sites[0] in mine)."
    ]


def test_a_network_without_any_host_is_told_so():
    net = nn.Sequential(nn.Flatten())
    assert mistakes(prune(at("input", "Conv2d")), net=net) == [
        "The network has no layer of type 'Conv2d'. It has none that can have a site (prune[0].sites[0] in mine)."
    ]
    assert len(mistakes(prune(at("input", paths=("conv",))), net=net)) == 1


def test_an_exclusion_that_excludes_nothing_is_a_mistake():
    assert mistakes(prune(at("output", "BatchNorm2d", exclude=("a.nrom",)))) == [
        'No layer matches "a.nrom". Nearest: "a.norm" (1 layer) (prune[0].sites[0].exclude in mine).'
    ]
    assert mistakes(prune(at("output", "BatchNorm2d"), at("input", "Linear"), exclude=("classifer",))) == [
        'No layer matches "classifer". Nearest: "classifier" (1 layer) (prune[0].exclude in mine).'
    ]
    assert mistakes(prune(at("output", "BatchNorm2d"), at("input", "Linear"), exclude=("classifier", "a.*"))) == [
        "The selector matches 1 layer, and exclude and skip leave none (prune[0].sites[1] in mine)."
    ]


def test_all_excluded_is_a_mistake():
    assert mistakes(prune(at("output", "BatchNorm2d", skip=(0,), exclude=("b.*",)))) == [
        "The selector matches 2 layers, and exclude and skip leave none (prune[0].sites[0] in mine)."
    ]


def test_skip_out_of_range_names_the_number_of_matches():
    assert mistakes(prune(at("output", "BatchNorm2d", skip=(2, 0, -3)))) == [
        "skip = 2 is out of range: the selector matches 2 layers (prune[0].sites[0] in mine).",
        "skip = -3 is out of range: the selector matches 2 layers (prune[0].sites[0] in mine).",
    ]


def test_a_side_that_the_host_lacks_is_refused():
    assert mistakes(quantize(at("input", "BatchNorm2d", paths=("a.*",)))) == [
        '"a.norm" (BatchNorm2d) has sites at output; received at = "input" (quantize[0].sites[0] in mine).'
    ]


def test_two_rules_on_one_site_are_refused():
    wrong = mistakes(prune(at("output", "BatchNorm2d")), prune(at("output", paths=("a.*",), exclude=("a.conv",))))
    assert wrong == [
        '"a.norm.output" already has a mask by prune[0]; use exclude in one of the rules (prune[1].sites[0] in mine).'
    ]


def test_a_mask_and_a_quantizer_share_a_site():
    assert mistakes(prune(at("output", "BatchNorm2d")), quantize(at("output", "BatchNorm2d"))) == []


def test_a_site_with_a_compressor_of_its_own_is_refused():
    net = nn.Sequential(PrunedConv2d(3, 5, 1, schedule=SHOT), nn.Conv2d(5, 2, 1))
    assert mistakes(prune(at("input", "Conv2d")), net=net) == [
        '"0.input" already has a mask of its own; exclude it (prune[0].sites[0] in mine).'
    ]


def test_a_layer_that_never_runs_is_refused():
    assert mistakes(prune(at("input", paths=("unused",)))) == [
        '"unused" never runs when the network does; exclude it (prune[0].sites[0] in mine).'
    ]


def test_a_layer_that_runs_twice_is_refused_as_an_activation_site():
    assert mistakes(quantize(at("output", paths=("twice",)))) == [
        '"twice" runs 2 times in one forward (operations 3 and 7), so its output is no one place; '
        'use the inputs of the convolutions behind it: types = ["Conv2d"], at = "input" (quantize[0].sites[0] in mine).'
    ]


class Recurrent(nn.Module):
    """A convolution that runs twice, behind rectifiers of its own or behind a function."""

    def __init__(self, rectifiers=True):
        super().__init__()
        self.stem, self.twice, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.act1, self.act2 = (nn.ReLU(), nn.ReLU()) if rectifiers else (torch.relu, torch.relu)

    def forward(self, x):
        return self.head(self.twice(self.act2(self.twice(self.act1(self.stem(x))))))


def test_a_convolution_that_runs_twice_is_told_what_works_instead():
    (line,) = mistakes(quantize(at("input", "Conv2d", skip=(0,))), net=Recurrent())
    assert line == (
        '"twice" runs 2 times in one forward (operations 2 and 4), so its input is no one place; exclude it, and use '
        'the outputs of what feeds it: paths = ["act1", "act2"], at = "output" (quantize[0].sites[0] in mine).'
    )
    (line,) = mistakes(quantize(at("input", paths=("twice",))), net=Recurrent(rectifiers=False))
    assert line.endswith(
        'exclude it, of which only the weight can be a site (at = "weight"), or make a layer for each of its calls '
        "(quantize[0].sites[0] in mine)."
    )
    works = at("input", "Conv2d", exclude=("twice",)), at("output", paths=("act1", "act2")), at("weight", "Conv2d")
    assert mistakes(quantize(*works[:2]), quantize(works[2]), net=Recurrent()) == []


def test_a_layer_that_cannot_have_a_site_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LocalResponseNorm(2), nn.MaxPool2d(2, return_indices=True))
    (line,) = mistakes(quantize(at("output", "LocalResponseNorm")), net=net[:2])
    assert line == (
        '"1" is a LocalResponseNorm, which cannot have a site; those that can are convolutions and linear layers, and '
        "what keeps channels: normalizations, activations, pooling, dropout, Upsample, Identity, Add and Concat "
        "(quantize[0].sites[0] in mine)."
    )
    (line,) = mistakes(quantize(at("output", "MaxPool2d")), net=net)
    assert line.startswith('"2" is a MaxPool2d that returns the places of its maxima, too, which cannot have a site')
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm([4, 8, 10]))
    (line,) = mistakes(quantize(at("output", "LayerNorm")), net=net)
    assert line.startswith('"1" is a LayerNorm over the dimensions (4, 8, 10), not over channels alone')


class Split(nn.Module):
    """Channels along two dimensions, as in a channel shuffle."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 6, 1), nn.SiLU()

    def forward(self, x):
        return self.act(self.conv(x).unflatten(1, (2, 3)))


def test_a_layer_whose_channels_lie_along_two_dimensions_is_refused():
    (line,) = mistakes(prune(at("output", "SiLU")), net=Split())
    assert line.startswith('"act" has an output of shape (2, 2, 3, ')
    assert "whose channels lie along the dimensions 1 and 2, not along one; exclude it" in line


def test_a_subclass_with_its_own_forward_is_refused():
    class Mine(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    rule = prune(at("input", "Conv2d"))
    sentence = '"0" is a Mine with its own forward, which a Conv2d host would not run (prune[0].sites[0] in mine).'
    assert mistakes(rule, net=nn.Sequential(Mine(3, 5, 1))) == [sentence]
    assert mistakes(prune(at("input", paths=("*",))), net=nn.Sequential(Mine(3, 5, 1))) == [sentence]
    net = nn.Sequential(nn.Conv2d(3, 5, 1))
    net[0].forward = lambda x: x
    assert mistakes(rule, net=net) == [sentence.replace("Mine", "Conv2d", 1)]


def test_a_parametrized_weight_is_refused():
    net = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 5, 1)))
    assert mistakes(prune(at("weight", "Conv2d")), net=net) == [
        '"0" has a parametrized weight; remove it first with '
        "torch.nn.utils.parametrize.remove_parametrizations (prune[0].sites[0] in mine)."
    ]


@pytest.mark.parametrize("side", ["weight", "output"])
def test_the_output_channels_of_the_network_cannot_be_pruned(side):
    assert mistakes(prune(at(side, "Linear"))) == [
        f'"classifier.{side}" holds the network\'s output channels, which cannot be pruned; exclude it '
        "(prune[0].sites[0] in mine)."
    ]
    assert mistakes(quantize(at(side, "Linear"))) == []
    assert mistakes(prune(at("input", "Linear"))) == []


def test_branches_of_a_sum_at_the_output_cannot_be_pruned():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.short, self.add = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), Add()

        def forward(self, x):
            return self.add(self.conv(x), self.short(x))

    assert len(mistakes(prune(at("weight", "Conv2d")), net=Residual())) == 2


def test_an_output_without_channels_is_refused():
    net = nn.Sequential(nn.ReLU(), nn.Flatten(0), nn.ReLU())
    assert mistakes(quantize(at("output", "ReLU")), net=net) == [
        '"2" has an output of shape (480,), without channels; exclude it (quantize[0].sites[0] in mine).'
    ]


def test_all_mistakes_are_told_at_once_and_nothing_is_changed():
    net = Net()
    before = copy.deepcopy(net.state_dict())
    rules = [prune(at("output", "BatchNorm2d")), prune(at("input", "Conv2d", skip=(9,)), at("output", "ReLU"))]
    with pytest.raises(PlanError) as caught:
        swap(net, X, rules, [quantize(at("weight", "Linaer"))])
    lines = str(caught.value).splitlines()
    assert [line.rsplit(" (", 1)[1] for line in lines] == [
        "prune[1].sites[0] in swap).", "prune[1].sites[0] in swap).", "prune[1].sites[1] in swap).",
        "quantize[0].sites[0] in swap).",
    ]  # fmt: skip
    assert not any(isinstance(module, Compressed) for module in net.modules())
    assert before.keys() == net.state_dict().keys()


def test_inherited_masks_are_chosen_as_others():
    net = swap(Net(), X, [prune(at("output", "BatchNorm2d"), schedule=Inherited())])
    assert [site.mask.schedule for site in sites(net)] == [Inherited(), Inherited()]


# numbers by pattern


def shot(sparsity):
    return OneShot(sparsity=sparsity, at=3)


NORMS = at("output", "BatchNorm2d")


def test_each_site_gets_the_sparsity_and_bits_of_its_pattern():
    net = swap(
        Net(),
        X,
        [prune(NORMS, schedule=shot({"a.*": 0.25, "b.*": 0.5}))],
        [quantize(at("weight", "Conv2d"), at("input", "Linear"), exclude=("unused",), bits={"b.conv": 3, "*": 5})],
    )
    assert (net.a.norm.output_mask.schedule, net.b.norm.output_mask.schedule) == (shot(0.25), shot(0.5))
    assert [net.get_submodule(path).weight_quant.bits for path in ("a.conv", "b.conv")] == [5, 3]
    assert net.classifier.input_quant.bits == 5


def test_a_layer_that_no_pattern_matches_is_named_with_the_way_out():
    assert mistakes(prune(NORMS, schedule=shot({"a.*": 0.25}))) == [
        'No pattern of sparsity matches "b.norm"; add one that does, or "*" = ... for all that no other matches '
        "(prune[0].sparsity in mine)."
    ]
    assert mistakes(quantize(at("weight", "Conv2d", "Linear", exclude=("unused",)), bits={"a.*": 4})) == [
        'No pattern of bits matches "b.conv", as of 1 more of the rule\'s layers; add one that does, or "*" = ... for '
        "all that no other matches (quantize[0].bits in mine)."
    ]


def test_a_pattern_of_a_table_must_match_a_layer_of_the_rule():
    assert mistakes(prune(NORMS, schedule=shot({"c.*": 0.25, "*": 0.5}))) == [
        'No layer of the rule matches "c.*". Nearest: "b.*" (1 layer) (prune[0].sparsity in mine).'
    ]
    net = nn.Sequential()
    net.layer1 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    net.head = nn.Conv2d(2, 2, 1)
    assert mistakes(quantize(at("weight", "Conv2d"), bits={"layr1.*": 4, "*": 8}), net=net) == [
        'No layer of the rule matches "layr1.*". Nearest: "layer1.*" (3 layers) (quantize[0].bits in mine).'
    ]


def test_a_pattern_that_never_decides_is_a_mistake():
    assert mistakes(prune(NORMS, schedule=shot({"a.*": 0.25, "b.*": 0.3, "*": 0.5}))) == [
        '"*" decides for no layer: narrower patterns match all of its own; leave it out (prune[0].sparsity in mine).'
    ]


def test_a_layer_with_two_patterns_of_which_none_is_narrower_is_named():
    assert mistakes(prune(NORMS, schedule=shot({"a.*": 0.25, "*.norm": 0.5}))) == [
        '"a.norm" matches "a.*" and "*.norm", of which none is the narrower; give it a pattern of its own, '
        '"a.norm" = ... (prune[0].sparsity in mine).'
    ]
    assert mistakes(prune(NORMS, schedule=shot({"a.*": 0.25, "*.norm": 0.5, "a.norm": 0}))) == [
        '"a.*" decides for no layer: narrower patterns match all of its own; leave it out (prune[0].sparsity in mine).'
    ]


def test_a_table_is_judged_beside_other_mistakes_of_the_rule():
    assert mistakes(prune(at("output", "BatchNorm2D"), schedule=shot({"a.*": 0.25}))) == [
        "The network has no layer of type 'BatchNorm2D'. Nearest: \"BatchNorm2d\" (prune[0].sites[0] in mine)."
    ]
