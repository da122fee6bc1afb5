import copy
import pickle
import re

import pytest
import torch
from torch import nn

from qprune.declared import build_declared
from qprune.errors import SpecError
from qprune.layers import PrunedConv2d
from qprune.schedules import OneShot
from qprune.spec import LayerSpec

X = torch.randn(2, 3, 8, 10)


def layer(type_=None, name=None, sources=None, repeat=1, layers=(), **options):
    return LayerSpec(type=type_, name=name, sources=sources, repeat=repeat, layers=layers, options=options)


def conv(out, kernel=3, **options):
    return layer("Conv2d", **({"out_channels": out, "kernel_size": kernel, "padding": kernel // 2} | options))


def mistakes(*layers, example=X):
    with pytest.raises(SpecError) as caught:
        build_declared(layers, example)
    return str(caught.value).splitlines()


# networks


def test_a_declared_chain_equals_the_same_layers_written_by_hand():
    torch.manual_seed(0)
    net = build_declared(
        [conv(5), layer("BatchNorm2d"), layer("ReLU"), layer("Flatten"), layer("Linear", out_features=4)], X
    )
    torch.manual_seed(0)
    by_hand = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(400, 4)
    )
    assert torch.equal(net(X), by_hand(X))


def test_names_count_the_layers_of_a_type():
    net = build_declared([conv(5), layer("ReLU"), conv(4), conv(6, name="last")], X)
    assert [name for name, _ in net.named_children()] == ["conv2d_1", "relu_1", "conv2d_2", "last"]


def test_a_counted_name_that_is_given_to_another_layer_is_passed_over():
    net = build_declared([conv(5, name="conv2d_2"), conv(4)], X)
    assert [name for name, _ in net.named_children()] == ["conv2d_2", "conv2d_3"]


def test_sources_make_skips_and_concatenations():
    net = build_declared(
        [
            conv(3, name="a"),
            conv(4, name="b"),
            layer("Concat", sources=("a", "b", "input")),
            layer("Add", sources=["concat_1"] * 2),
        ],
        X,
    )
    a = net.a(X)
    assert torch.equal(net(X), 2 * torch.cat([a, net.b(a), X], 1))


def test_the_concatenated_channels_are_counted():
    net = build_declared([conv(4), layer("Concat", sources=("conv2d_1", "input")), conv(5)], X)
    assert net.conv2d_2.in_channels == 7


def test_channel_counts_are_read_from_the_input():
    net = build_declared(
        [
            conv(6),
            layer("GroupNorm", num_groups=2),
            layer("InstanceNorm2d"),
            layer("ConvTranspose2d", out_channels=5, kernel_size=2),
            layer("AdaptiveAvgPool2d", output_size=1),
            layer("Flatten"),
            layer("Linear", out_features=7),
        ],
        X,
    )
    assert (net.groupnorm_1.num_channels, net.instancenorm2d_1.num_features) == (6, 6)
    assert (net.convtranspose2d_1.in_channels, net.linear_1.in_features) == (6, 5)


def test_a_count_may_be_given():
    assert build_declared([conv(6, in_channels=3)], X).conv2d_1.in_channels == 3


def test_lists_are_taken_as_tuples():
    assert build_declared([conv(6, kernel_size=[3, 1])], X).conv2d_1.kernel_size == (3, 1)


def test_a_block_is_a_network_of_its_own():
    inner = (conv(3, name="conv"), layer("ReLU"), layer("Add", sources=("relu_1", "input")))
    net = build_declared([conv(3, name="conv"), layer(layers=inner), layer("ReLU")], X)
    x = net.conv(X)
    assert torch.equal(net(X), (net.block_1.conv(x).relu() + x).relu())


def test_a_repeated_block_is_a_sequence_of_copies_with_their_own_channels():
    net = build_declared([layer(name="stage", repeat=3, layers=(conv(5), layer("BatchNorm2d")))], X)
    assert [net.get_submodule(f"stage.{i}.conv2d_1").in_channels for i in range(3)] == [3, 5, 5]
    assert not torch.equal(net.stage[1].conv2d_1.weight, net.stage[2].conv2d_1.weight)
    assert net(X).shape == (2, 5, 8, 10)


def test_a_repeated_layer_is_a_sequence_of_copies():
    net = build_declared([conv(4, repeat=2), layer("Add", sources=("conv2d_1", "conv2d_1"))], X)
    assert [net.get_submodule(f"conv2d_1.{i}").in_channels for i in range(2)] == [3, 4]


def test_blocks_nest():
    inside = layer(name="inside", repeat=2, layers=(conv(4),))
    net = build_declared([layer(name="outside", layers=(inside, layer("ReLU")))], X)
    assert net.get_submodule("outside.inside.1.conv2d_1").in_channels == 4


def test_compressed_layers_carry_their_schedules():
    schedule = OneShot(sparsity=0.5, at=4)
    net = build_declared([layer("PrunedConv2d", out_channels=5, kernel_size=3, schedule=schedule)], X)
    assert isinstance(net.prunedconv2d_1, PrunedConv2d)
    assert (net.prunedconv2d_1.in_channels, net.prunedconv2d_1.input_mask.schedule) == (3, schedule)


@pytest.mark.parametrize("type_", ["QuantConv2d", "PrunedQuantConv2d", "QuantConvTranspose2d", "PrunedConvTranspose2d"])
def test_every_compressed_convolution_can_be_declared(type_):
    net = build_declared([layer(type_, out_channels=5, kernel_size=3, padding=1)], X)
    assert net(X).shape == (2, 5, 8, 10)


@pytest.mark.parametrize("type_", ["PrunedLinear", "QuantLinear", "PrunedQuantLinear"])
def test_every_compressed_linear_layer_can_be_declared(type_):
    net = build_declared([layer("Flatten"), layer(type_, out_features=5)], X)
    assert net(X).shape == (2, 5)


def test_the_network_trains_and_starts_in_training_mode():
    net = build_declared([conv(5), layer("BatchNorm2d"), layer("Dropout", p=0.25)], X)
    assert all(module.training for module in net.modules())
    net(X).sum().backward()
    assert all(p.grad is not None and not p.is_meta for p in net.parameters())


def test_one_value_per_channel_is_no_obstacle():
    assert build_declared([layer("BatchNorm2d")], torch.zeros(1, 3, 1, 1)).batchnorm2d_1.num_features == 3


def test_the_example_may_be_on_the_meta_device():
    assert build_declared([conv(5)], X.to("meta")).conv2d_1.in_channels == 3


def test_traced_exported_copied_and_pickled_networks_equal_the_module():
    inner = (conv(3), layer("BatchNorm2d"), layer("Add", sources=("batchnorm2d_1", "input")))
    net = build_declared(
        [layer(repeat=2, layers=inner), layer("PrunedConv2d", out_channels=4, kernel_size=1)], X
    ).eval()
    expected = net(X)
    assert torch.equal(torch.fx.symbolic_trace(net)(X), expected)
    assert torch.equal(torch.export.export(net, (X,)).module()(X), expected)
    assert torch.equal(copy.deepcopy(net)(X), expected)
    assert torch.equal(pickle.loads(pickle.dumps(net))(X), expected)


# mistakes


def test_no_layers():
    assert mistakes() == ["model.layers: must hold at least one layer; received none"]


@pytest.mark.parametrize(
    ("wrong", "right"), [("conv2D", "Conv2d"), ("relu", "ReLU"), ("PrunedConv", "PrunedConv2d"), ("add", "Add")]
)
def test_an_unknown_type_is_answered_with_the_nearest(wrong, right):
    assert mistakes(conv(3), layer(wrong)) == [
        f'model.layers[1].type: unknown layer type "{wrong}"; nearest: "{right}"'
    ]


@pytest.mark.parametrize("wrong", ["Sequential", "ModuleList", "Module"])
def test_containers_are_no_layers(wrong):
    assert mistakes(layer(wrong))[0].startswith(f'model.layers[0].type: unknown layer type "{wrong}"; ')


def test_a_type_like_no_other():
    sentence = 'unknown layer type "qqqqqq"; it may be a layer of torch.nn or qprune.layers, Add or Concat'
    assert mistakes(layer("qqqqqq")) == [f"model.layers[0].type: {sentence}"]


def test_an_unknown_option_is_answered_with_the_nearest():
    assert mistakes(conv(3, strides=2)) == ['model.layers[0].strides: Conv2d has no such option; nearest: "stride"']


def test_an_unknown_option_of_a_compressed_layer_is_answered_with_the_nearest():
    wrong = layer("PrunedConv2d", out_channels=5, kernel_size=3, importnce="random")
    assert mistakes(wrong) == ['model.layers[0].importnce: PrunedConv2d has no such option; nearest: "importance"']


def test_a_network_lives_where_it_is_put_not_where_it_is_declared():
    assert mistakes(conv(3, device="cuda"))[0].startswith("model.layers[0].device: Conv2d has no such option")


def test_an_option_of_a_layer_that_has_none():
    assert mistakes(layer("Tanh", p=1)) == ["model.layers[0].p: Tanh has no such option; it has none"]


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("kernel_size", "3", 'must be a whole number or a list of 2; received "3"'),
        ("kernel_size", [3, 3, 3], "must be a whole number or a list of 2; received [3, 3, 3]"),
        ("out_channels", 2.5, "must be a whole number; received 2.5"),
        ("bias", "no", 'must be true or false; received "no"'),
        ("groups", True, "must be a whole number; received true"),
        (
            "padding_mode",
            "mirror",
            'must be one of "zeros", "reflect", "replicate", "circular"; received "mirror"',
        ),
    ],
)
def test_an_option_of_the_wrong_type(option, value, sentence):
    assert mistakes(conv(4, **{option: value})) == [f"model.layers[0].{option}: {sentence}"]


def test_a_schedule_that_is_no_schedule():
    wrong = layer("PrunedConv2d", out_channels=5, kernel_size=3, schedule=3)
    assert mistakes(wrong) == [
        "model.layers[0].schedule: must be OneShot or Stepwise or Layerwise or Inherited; received 3"
    ]


def test_a_missing_option():
    assert mistakes(layer("Conv2d")) == ['model.layers[0]: Conv2d needs "out_channels" and "kernel_size"']


def test_arguments_that_the_constructor_refuses():
    assert mistakes(conv(4, groups=2)) == [
        "model.layers[0]: Conv2d(in_channels=3, out_channels=4, kernel_size=3, padding=1, groups=2) cannot be made: "
        "in_channels must be divisible by groups"
    ]


def test_a_shape_that_the_layer_cannot_read():
    (sentence,) = mistakes(layer("ReLU"), layer("BatchNorm2d", num_features=7))
    assert sentence.startswith("model.layers[1]: BatchNorm2d(7, eps=")
    assert sentence.endswith('cannot read "relu_1" (N, 3, 8, 10): running_mean should contain 3 elements not 7')


def test_a_kernel_larger_than_its_input():
    (sentence,) = mistakes(conv(4, kernel=11, padding=0))
    assert 'cannot read "input" (N, 3, 8, 10): ' in sentence
    assert "Kernel size can't be greater than actual input size" in sentence


def test_linear_on_an_image_asks_for_flatten():
    assert mistakes(layer("Linear", out_features=4)) == [
        'model.layers[0]: Linear reads flat features; received "input" (N, 3, 8, 10): put a Flatten before it'
    ]


def test_a_layer_that_returns_no_tensor():
    (sentence,) = mistakes(layer("MaxPool2d", kernel_size=2, return_indices=True))
    assert sentence.endswith("returns a tuple; a declared layer returns one tensor")


def test_a_duplicate_name():
    assert mistakes(conv(3, name="a"), conv(3, name="a")) == [
        'model.layers[1].name: "a" is taken by layers[0]; names must differ'
    ]


@pytest.mark.parametrize("name", ["input", "a.b", "forward", "wiring"])
def test_a_name_that_cannot_be_given(name):
    assert mistakes(conv(3, name=name)) == [
        f'model.layers[0].name: "{name}" is reserved or has a dot; choose another name'
    ]


def test_a_source_that_names_nothing_is_answered_with_the_nearest():
    assert mistakes(conv(3, name="stem"), layer("Add", sources=("stm", "input"))) == [
        'model.layers[1].from: no layer is called "stm"; layers read earlier ones, or "input"; nearest: "stem"'
    ]


def test_a_source_that_comes_later():
    assert mistakes(layer("Add", sources=("input", "late")), conv(3, name="late")) == [
        'model.layers[0].from: "late" comes later, at layers[1]; layers read earlier ones, or "input"'
    ]


def test_a_source_that_is_the_layer_itself():
    assert mistakes(conv(3, name="a", sources="a")) == [
        'model.layers[0].from: "a" is this layer itself; layers read earlier ones, or "input"'
    ]


def test_a_block_does_not_see_the_names_around_it():
    inside = (conv(3), layer("Add", sources=("conv2d_1", "stem")))
    assert mistakes(conv(3, name="stem"), layer(layers=inside)) == [
        'model.layers[1].layers[1].from: no layer is called "stem"; '
        'a block\'s layers read earlier ones of the block, or "input"'
    ]


def test_no_source_at_all():
    assert mistakes(layer("Add", sources=())) == ["model.layers[0].from: must name at least one layer; received none"]


def test_an_output_that_nobody_reads():
    assert mistakes(conv(3, name="a"), conv(4, name="b", sources="input")) == [
        'model.layers[0]: no later layer reads "a"; name it in a "from", or remove it'
    ]


def test_add_needs_equal_shapes():
    assert mistakes(conv(4), layer("Add", sources=("conv2d_1", "input"))) == [
        'model.layers[1].from: Add needs equal shapes; received "conv2d_1" (N, 4, 8, 10) and "input" (N, 3, 8, 10)'
    ]


def test_concat_needs_equal_pictures():
    sentence = 'received "conv2d_1" (N, 4, 4, 5) and "input" (N, 3, 8, 10)'
    assert mistakes(conv(4, stride=2), layer("Concat", sources=("conv2d_1", "input"))) == [
        f"model.layers[1].from: Concat needs shapes that differ in dimension 1 alone; {sentence}"
    ]


def test_add_needs_two_tensors():
    assert mistakes(conv(4), layer("Add")) == [
        'model.layers[1].from: Add reads at least 2 tensors; received "conv2d_1"; name them as a list in "from"'
    ]


@pytest.mark.parametrize("type_", ["Conv2d", "PrunedConv2d"])
def test_a_convolution_reads_one_tensor(type_):
    wrong = layer(type_, sources=("conv2d_1", "input"), name="x", out_channels=2, kernel_size=1)
    assert mistakes(conv(4), wrong) == [
        f'model.layers[1].from: {type_} reads 1 tensor; received "conv2d_1" and "input"; '
        "join them with Add or Concat first"
    ]


def test_what_is_repeated_reads_one_tensor():
    assert mistakes(conv(3), layer("Add", sources=("conv2d_1", "input"), repeat=2)) == [
        'model.layers[1].from: what is repeated reads one tensor; received "conv2d_1" and "input"'
    ]


def test_a_block_reads_one_tensor():
    assert mistakes(conv(3), layer(layers=(conv(3),), sources=("conv2d_1", "input"))) == [
        'model.layers[1].from: a block reads one tensor; received "conv2d_1" and "input"; join them with Add or Concat'
    ]


def test_a_mistake_of_a_later_copy_names_the_copy():
    (sentence,) = mistakes(layer(repeat=3, layers=(conv(6, in_channels=3, kernel=1),)))
    assert re.fullmatch(r"model\.layers\[0\]\.layers\[0\]: Conv2d\(3, 6, .*\) cannot read .* \(copy 2 of 3\)", sentence)


def test_all_mistakes_are_told_at_once():
    inside = (layer("Relu6"), conv(3, sources="ouput"))
    told = mistakes(conv(4, strides=2), layer("Conv3"), layer(layers=inside), layer("Add", sources=("a", "input")))
    assert [sentence.split(":")[0] for sentence in told] == [
        "model.layers[0].strides",
        "model.layers[1].type",
        "model.layers[2].layers[0].type",
        "model.layers[2].layers[1].from",
        "model.layers[3].from",
    ]


def test_what_follows_a_mistake_is_still_checked_but_not_blamed_for_it():
    told = mistakes(conv(4, strides=2), layer("BatchNorm2d", num_features=9), conv(4, kernel_size="3"))
    assert [sentence.split(":")[0] for sentence in told] == ["model.layers[0].strides", "model.layers[2].kernel_size"]


def test_a_layer_too_large_for_any_memory_is_refused_before_it_is_made():
    assert mistakes(conv(10**12)) == [
        "model.layers[0]: Conv2d(in_channels=3, out_channels=1000000000000, kernel_size=3, padding=1) has "
        "28,000,000,000,000 weights; a layer has at most 1,000,000,000"
    ]
