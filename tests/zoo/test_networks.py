import copy
import pickle
from collections import Counter
from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qprune import zoo

NAMES = ("densenet121", "mobilenetv2", "preactresnet18")


def on_meta(name, **options):
    with torch.device("meta"):
        return zoo.create(name, **options).eval()


def run_on_meta(net, size=(1, 3, 32, 32)):
    return net(torch.zeros(size, device="meta"))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def paths(net, types, pattern="*"):
    return [path for path, module in net.named_modules() if isinstance(module, types) and fnmatchcase(path, pattern)]


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [
        ("densenet121", 1, 7_048_548),
        ("densenet121", 0.5, 1_809_124),
        ("densenet121", 0.25, 475_812),
        ("mobilenetv2", 1, 2_369_380),
        ("mobilenetv2", 0.5, 653_316),
        ("mobilenetv2", 0.25, 193_852),
        ("preactresnet18", 1, 11_222_244),
        ("preactresnet18", 0.5, 2_821_796),
        ("preactresnet18", 0.25, 713_604),
    ],
)
def test_parameters_are_those_of_the_published_network(name, width, count):
    assert parameters(on_meta(name, width=width)) == count


@pytest.mark.parametrize(
    ("name", "children"),
    [
        (
            "densenet121",
            {
                "stem": 1_728,
                "block1": 335_040,
                "transition1": 33_280,
                "block2": 919_680,
                "transition2": 132_096,
                "block3": 2_837_760,
                "transition3": 526_336,
                "block4": 2_158_080,
                "norm": 2_048,
                "linear": 102_500,
            },
        ),
        (
            "mobilenetv2",
            {
                "stem": 192,
                "stage1": 2_064,
                "stage2": 14_496,
                "stage3": 40_848,
                "stage4": 186_816,
                "stage5": 306_528,
                "stage6": 800_736,
                "stage7": 476_160,
                "head": 413_440,
                "classifier": 128_100,
            },
        ),
        (
            "preactresnet18",
            {
                "stem": 1_920 - 128,
                "norm": 128,
                "stage1": 148_224,
                "stage2": 525_824,
                "stage3": 2_100_224,
                "stage4": 8_394_752,
                "linear": 51_300,
            },
        ),
    ],
)
def test_every_child_has_its_share_of_the_parameters_in_the_order_of_data_flow(name, children):
    found = {child: parameters(module) for child, module in on_meta(name).named_children()}
    assert list({child: count for child, count in found.items() if count}.items()) == list(children.items())


@pytest.mark.parametrize(
    ("name", "buffers", "weights"),
    [("densenet121", 83_640, 6_964_928), ("mobilenetv2", 34_229, 2_318_016), ("preactresnet18", 6_929, 11_210_432)],
)
def test_buffers_and_weights_of_convolutions_and_linear_layers(name, buffers, weights):
    net = on_meta(name)
    assert sum(b.numel() for b in net.buffers()) == buffers
    assert sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)) == weights


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("densenet121", (0.8884, 0.2226, 0.0559)),
        ("mobilenetv2", (0.0649, 0.0170, 0.0046)),
        ("preactresnet18", (0.5555, 0.1393, 0.0351)),
    ],
)
def test_multiply_accumulates_of_convolutions_and_linear_layers(name, giga):
    for width, expected in zip((1, 0.5, 0.25), giga, strict=True):
        net = on_meta(name, width=width)
        with FlopCounterMode(display=False) as counter:
            run_on_meta(net)
        assert round(counter.get_total_flops() / 2e9, 4) == expected


@pytest.mark.parametrize(
    ("name", "features", "with_norms"),
    [
        ("densenet121", 2_056_292, 6_910_052),
        ("mobilenetv2", 881_812, 1_763_524),
        ("preactresnet18", 614_500, 1_228_900),
    ],
)
def test_output_features(name, features, with_norms):
    net, sizes = on_meta(name), Counter()
    for module in net.modules():
        module.register_forward_hook(lambda m, _, out: sizes.update({type(m): out.numel()}))
    run_on_meta(net)
    assert sizes[nn.Conv2d] + sizes[nn.Linear] == features
    assert sizes[nn.Conv2d] + sizes[nn.Linear] + sizes[nn.BatchNorm2d] == with_norms


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("densenet121", {nn.Conv2d: 120, nn.ReLU: 117, nn.Linear: 1, zoo.Concat: 58}),
        ("mobilenetv2", {nn.Conv2d: 54, nn.ReLU6: 36, nn.Linear: 0, zoo.Add: 10}),
        ("preactresnet18", {nn.Conv2d: 20, nn.ReLU: 17, nn.Linear: 1, zoo.Add: 8}),
    ],
)
def test_as_many_layers_of_each_type_as_the_published_sites(name, counts):
    net = on_meta(name)
    assert {type_: len(paths(net, type_)) for type_ in counts} == counts


def test_a_pattern_selects_what_densenet121_has_in_its_transitions():
    net = on_meta("densenet121")
    assert paths(net, nn.BatchNorm2d, "*transition*") == ["transition1.norm", "transition2.norm", "transition3.norm"]
    assert paths(net, nn.AvgPool2d, "*transition*") == ["transition1.pool", "transition2.pool", "transition3.pool"]
    assert paths(net, nn.ReLU, "*transition*") == []


def test_a_pattern_selects_the_17_projection_norms_of_mobilenetv2():
    assert len(paths(on_meta("mobilenetv2"), nn.BatchNorm2d, "*.post_residual.*")) == 17


def test_the_last_convolution_of_mobilenetv2_is_its_classifier():
    assert paths(on_meta("mobilenetv2"), nn.Conv2d)[-1] == "classifier"


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_called_exactly_once(name):
    net, calls = on_meta(name), Counter()
    for path, module in net.named_modules():
        module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    run_on_meta(net)
    assert calls == Counter(path for path, _ in net.named_modules())


def test_layers_are_registered_in_the_order_in_which_data_reaches_them():
    for name in NAMES:
        net, reached = on_meta(name), []
        for path, module in net.named_modules():
            if not list(module.children()):
                module.register_forward_hook(lambda *_, path=path, reached=reached: reached.append(path))
        run_on_meta(net)
        assert reached == [path for path, module in net.named_modules() if not list(module.children())]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(2, 3, 32, 32), (3, 3, 40, 24)])
def test_the_output_has_one_logit_per_class(name, size):
    assert run_on_meta(on_meta(name, classes=7), size).shape == (size[0], 7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.3, 0.07, 0.001])
def test_any_width_makes_a_network_that_trains(name, width):
    net = zoo.create(name, classes=5, in_channels=2, width=width)
    net(torch.randn(2, 2, 16, 24)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_width_rounds_channels_down():
    net = on_meta("mobilenetv2", width=0.3)
    assert (net.stem.conv.out_channels, net.stage7[0].post_residual.conv.out_channels) == (9, 96)
    assert net.head.conv.out_channels == 384


@pytest.mark.parametrize("name", NAMES)
def test_traced_and_exported_networks_equal_the_module(name):
    net, x = zoo.create(name, classes=5, width=0.07).eval(), torch.randn(2, 3, 16, 24)
    expected = net(x)
    assert torch.equal(torch.fx.symbolic_trace(net)(x), expected)
    assert torch.equal(torch.export.export(net, (x,)).module()(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_pickle_and_deepcopy_keep_the_outputs(name):
    net, x = zoo.create(name, classes=5, width=0.07).eval(), torch.randn(2, 3, 16, 24)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))
