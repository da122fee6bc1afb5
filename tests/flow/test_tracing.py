import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qprune import zoo
from qprune.errors import PlanError
from qprune.flow import hooked_copy, host_picture, trace
from qprune.flow.tracing import _brought
from qprune.layers import CompressedReLU, QuantConv2d
from qprune.zoo import Add, Concat

X = torch.zeros(2, 3, 8, 10)


class Net(nn.Module):
    """Layers by name, and a forward written in the test."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = forward

    def forward(self, *inputs):
        return self.run(self, *inputs)


def conv(into=3, out=5, kernel=1, **options):
    return nn.Conv2d(into, out, kernel, **options)


# what is written down


def test_a_chain_is_written_down_in_order_with_its_shapes():
    flow = trace(nn.Sequential(conv(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 6 * 8, 4)), X)
    assert [(c.path, c.name, c.inputs) for c in flow.calls] == [
        ("0", "Conv2d", (-1,)), ("1", "ReLU", (0,)), ("2", "Flatten", (1,)), ("3", "Linear", (2,)),
    ]  # fmt: skip
    assert [c.shape for c in flow.calls] == [(2, 5, 6, 8), (2, 5, 6, 8), (2, 240), (2, 4)]
    assert flow.calls[0].shapes == ((2, 3, 8, 10),)
    assert flow.outputs == (3,)


@pytest.mark.parametrize(
    ("name", "layers", "outputs"), [("densenet121", 121, 1), ("mobilenetv2", 54, 1), ("preactresnet18", 21, 1)]
)
def test_every_weighted_layer_of_the_zoo_runs_once(name, layers, outputs):
    net = zoo.create(name, width=0.25, classes=7)
    flow = trace(net, torch.zeros(2, 3, 32, 32))
    weighted = [path for path, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == layers
    assert all(len(flow.of(path)) == 1 for path in weighted)
    assert flow.calls[flow.outputs[0]].shape == (2, 7)
    assert len(flow.outputs) == outputs


def test_layers_are_those_of_the_network_itself():
    net = nn.Sequential(conv(), nn.ReLU())
    assert [c.layer for c in trace(net, X).calls] == [net[0], net[1]]


def test_a_relu_called_twice_has_two_calls_and_a_sum_by_function_is_one():
    torchvision = pytest.importorskip("torchvision")
    flow = trace(torchvision.models.resnet18(weights=None), torch.zeros(1, 3, 32, 32))
    assert len(flow.of("layer1.0.relu")) == 2
    assert [c.name for c in flow.calls if c.layer is None] == ["add_"] * 8 + ["flatten"]
    assert flow.output_paths() == {"fc"}
    assert list(flow.norms_reading("layer1.0.conv1")) == [("layer1.0.bn1", 0)]


def test_python_control_flow_on_shapes_is_followed():
    def forward(net, x):
        while x.shape[-1] > 2:
            x = net.pool(net.conv(x))
        return x if x.shape[1] == 3 else None

    flow = trace(Net(forward, conv=conv(3, 3), pool=nn.AvgPool2d(2)), torch.zeros(1, 3, 8, 9))
    assert [c.path for c in flow.calls] == ["conv", "pool", "conv", "pool"]
    assert [c.index for c in flow.of("conv")] == [0, 2]


def test_an_in_place_layer_is_the_maker_of_what_is_read_later():
    def forward(net, x):
        y = net.conv(x)
        net.act(y)
        y.add_(1)
        return net.norm(y)

    flow = trace(Net(forward, conv=conv(), act=nn.ReLU(inplace=True), norm=nn.BatchNorm2d(5)), X)
    assert [(c.name, c.inputs) for c in flow.calls] == [
        ("Conv2d", (-1,)), ("ReLU", (0,)), ("add_", (1,)), ("BatchNorm2d", (2,)),
    ]  # fmt: skip
    assert list(flow.norms_reading("conv")) == []


def test_writing_into_a_part_of_a_tensor_is_an_operation():
    def forward(net, x):
        y = net.conv(x)
        y[:, :2] = 1
        return net.norm(y)

    flow = trace(Net(forward, conv=conv(), norm=nn.BatchNorm2d(5)), X)
    assert [c.name for c in flow.calls] == ["Conv2d", "__setitem__", "BatchNorm2d"]
    assert list(flow.norms_reading("conv")) == []


def test_functions_inside_a_layer_are_not_written_down():
    flow = trace(Net(lambda net, x: F.relu(net.a(x)) + 1, a=nn.BatchNorm2d(3)), X)
    assert [c.name for c in flow.calls] == ["BatchNorm2d", "relu", "add"]


def test_subclasses_that_run_the_forward_of_torch_are_layers():
    class Mine(nn.Conv2d):
        pass

    class Chain(nn.Sequential):
        pass

    flow = trace(Chain(Mine(3, 5, 1), nn.ReLU()), X)
    assert [(c.path, c.name) for c in flow.calls] == [("0", "Mine"), ("1", "ReLU")]


def test_layers_in_a_plain_module_are_found():
    net = Net(lambda net, x: net.box.conv(x), box=nn.Module())
    net.box.conv = conv()
    assert [c.path for c in trace(net, X).calls] == ["box.conv"]


def test_a_network_may_be_one_layer():
    flow = trace(conv(), X)
    assert [c.path for c in flow.calls] == [""]
    assert flow.output_paths() == {""}


def test_tensors_made_in_forward_are_no_obstacle():
    flow = trace(Net(lambda net, x: net.conv(x + torch.ones(x.shape[-1])), conv=conv()), X)
    assert flow.calls[-1].shape == (2, 5, 8, 10)


def test_several_inputs_are_a_tuple():
    flow = trace(Net(lambda net, a, b: net.add(net.conv(a), b), conv=conv(), add=Add()), (X, torch.zeros(2, 5, 8, 10)))
    assert flow.of("add")[0].inputs == (0, -1)


# outputs


@pytest.mark.parametrize(
    "wrap", [lambda a, b: (a, [b]), lambda a, b: {"a": a, "b": {"c": b}}, lambda a, b: (a, None, b)]
)
def test_outputs_in_tuples_and_dicts_are_found(wrap):
    flow = trace(Net(lambda net, x: wrap(net.a(x), net.b(net.a2(x))), a=conv(), a2=conv(), b=nn.ReLU()), X)
    assert flow.output_paths() == {"a", "a2", "b"}


def test_output_paths_end_at_what_mixes_channels():
    net = nn.Sequential(
        conv(3, 5), nn.BatchNorm2d(5), nn.ReLU(), conv(5, 4), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2)
    )
    assert trace(net, X).output_paths() == {"3", "4", "5"}


def test_a_depthwise_convolution_hands_channels_through_to_the_output():
    net = nn.Sequential(conv(3, 6), conv(6, 6, groups=6))
    assert trace(net, X).output_paths() == {"0", "1"}
    net = nn.Sequential(conv(3, 6), conv(6, 3, groups=3))
    assert trace(net, X).output_paths() == {"1"}


def test_a_mixing_function_ends_the_outputs_too():
    net = Net(lambda net, x: F.conv2d(net.a(x), net.b.weight), a=conv(3, 5), b=conv(5, 4))
    assert trace(net, X).output_paths() == set()


# norms that read a layer


def dense_net():
    def forward(net, x):
        a = net.a(x)
        ab = net.join(a, net.b(net.act(net.norm1(a))))
        return net.head(net.norm2(torch.cat([ab, net.c(x)], 1)))

    return Net(
        forward, a=conv(3, 4), b=conv(4, 5), c=conv(3, 6), norm1=nn.BatchNorm2d(4), norm2=nn.BatchNorm2d(15),
        act=nn.ReLU(), join=Concat(), head=conv(15, 2),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "norms"), [("a", [("norm1", 0), ("norm2", 0)]), ("b", [("norm2", 4)]), ("c", [("norm2", 9)])]
)
def test_norms_behind_a_concatenation_have_an_offset(path, norms):
    assert list(trace(dense_net(), X).norms_reading(path)) == norms


def test_later_norms_of_a_dense_block_read_an_early_layer_at_its_offset():
    net = zoo.create("densenet121", width=0.25)
    found = dict(trace(net, torch.zeros(2, 3, 32, 32)).norms_reading("block1.1.conv2"))
    assert found == {
        "block1.2.norm1": 24,
        "block1.3.norm1": 24,
        "block1.4.norm1": 24,
        "block1.5.norm1": 24,
        "transition1.norm": 24,
    }


@pytest.mark.parametrize(
    "end",
    [
        lambda net, y: y + 1,
        lambda net, y: net.add(y, y),
        lambda net, y: y.flatten(2).unflatten(2, (8, 10)),
        lambda net, y: y.roll(1, 1),
        lambda net, y: torch.cat([y, y], 3),
    ],
)
def test_sums_and_what_is_not_known_end_the_search(end):
    net = Net(lambda net, x: net.norm(end(net, net.conv(x))), conv=conv(), add=Add(), norm=nn.BatchNorm2d(5))
    assert list(trace(net, X).norms_reading("conv")) == []


def test_activations_pooling_and_norms_are_looked_through():
    net = nn.Sequential(
        conv(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(5),
        nn.GELU(),
        nn.InstanceNorm2d(5),
        conv(5, 5),
        nn.BatchNorm2d(5),
    )
    assert list(trace(net, X).norms_reading("0")) == [("3", 0), ("5", 0)]


# rectified


@pytest.mark.parametrize(
    ("layers", "answer"),
    [
        ([nn.ReLU()], True),
        ([nn.ReLU6(), nn.MaxPool2d(2), nn.Dropout()], True),
        ([nn.BatchNorm2d(3)], False),
        ([nn.ReLU(), nn.BatchNorm2d(3)], False),
        ([nn.LeakyReLU()], False),
    ],
)
def test_rectified_tensors_come_from_a_relu(layers, answer):
    flow = trace(nn.Sequential(*layers), X)
    assert flow.rectified(flow.calls[-1]) is answer


@pytest.mark.parametrize("both", [True, False])
def test_a_concatenation_is_rectified_if_all_its_parts_are(both):
    act = nn.ReLU() if both else nn.Identity()
    flow = trace(Net(lambda net, x: net.join(F.relu(x), net.act(x)), act=act, join=Concat()), X)
    assert flow.rectified(flow.calls[-1]) is both


# order and sources


def test_position_is_execution_order_and_what_never_runs_is_last():
    net = Net(lambda net, x: net.b(net.a(x)), b=conv(5, 4), a=conv(3, 5), unused=conv())
    flow = trace(net, X)
    assert sorted(["b", "unused", "a"], key=flow.position) == ["a", "b", "unused"]
    assert flow.of("unused") == ()


def test_source_is_the_maker_of_the_first_argument():
    flow = trace(nn.Sequential(conv(), nn.ReLU()), X)
    assert flow.source(flow.calls[1]) == flow.calls[0]
    assert flow.source(flow.calls[0]) is None


# other names, other readers


def test_a_write_through_a_view_is_read_by_the_earlier_name():
    def forward(net, x):
        y = net.a(x)
        y[:, :2].mul_(3)
        return net.b(y)

    flow = trace(Net(forward, a=conv(3, 5), b=conv(5, 4)), X)
    a, view, write, b = flow.calls
    assert [call.name for call in flow.calls] == ["Conv2d", "__getitem__", "mul_", "Conv2d"]
    assert flow.overwriting == {write.index}
    assert write.inputs == (view.index, a.index)
    assert (b.inputs, b.shapes[0][1]) == ((write.index,), 5)


def test_a_write_that_nobody_else_reads_is_an_ordinary_call():
    flow = trace(nn.Sequential(conv(3, 5), nn.Identity(), nn.ReLU(inplace=True), conv(5, 4)), X)
    assert flow.overwriting == frozenset()
    assert [call.inputs for call in flow.calls] == [(-1,), (0,), (1,), (2,)]


def test_a_parameter_that_a_function_reads_is_borrowed():
    net = Net(lambda net, x: F.conv2d(net.a(x), net.b.weight) + net.b(net.a(x)), a=conv(3, 5), b=conv(5, 4))
    assert trace(net, X).borrowed == {"b": "conv2d"}
    assert trace(nn.Sequential(conv(), nn.BatchNorm2d(5)), X).borrowed == {}


def test_hooks_of_blocks_watch_what_goes_in_and_comes_out():
    net = nn.Sequential(conv(3, 5), nn.Sequential(nn.ReLU(), conv(5, 4)), nn.ReLU())
    net[0].register_forward_hook(lambda *_: None)  # a layer is a call, and has its hook itself
    assert trace(net, X).watched == {}
    net[1].register_forward_hook(lambda *_: None)
    assert trace(net, X).watched == {0: "1", 2: "1"}


# the network stays as it is


def test_the_network_is_untouched():
    net = nn.Sequential(conv(), nn.BatchNorm2d(5), CompressedReLU(), nn.Dropout()).train()
    net[3].eval()
    heard = []
    net[0].register_forward_hook(lambda *_: heard.append(1))
    net[1].register_forward_pre_hook(lambda *_: heard.append(2))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trace(net, X)
    assert heard == []
    assert [m.training for m in net.modules()] == [True, True, True, True, False]
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net] == [(1, 0), (0, 1), (0, 0), (0, 0)]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    assert not any(p.requires_grad is False for p in net.parameters())


def test_a_network_that_reads_values_is_refused():
    net = Net(lambda net, x: net.a(x) if x.sum().item() > 0 else x, a=conv())
    with pytest.raises(PlanError) as caught:
        trace(net, X)
    assert str(caught.value).startswith("The network could not be followed on an example of shape (2, 3, 8, 10): ")
    assert "Its forward must run on the meta device, that is, without reading values" in str(caught.value)


class Reading(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.scales = [torch.ones(3, 1, 1)]

    def forward(self, x):
        return x * self.scales[0]


OUTSIDE = torch.ones(3, 1, 1)


class Outside(nn.Module):
    def forward(self, x):
        return x * OUTSIDE


class Sized(nn.Module):
    def forward(self, x):
        assert x.shape[-1] == 32, "images have 32 columns"
        return x


class Unequal(nn.Module):
    def forward(self, x):
        return x + x[:, :2]


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Reading(), '"1" (Reading), at `return x if x.mean() > 0 else -x` (test_tracing.py, line '),
        (Reading(), " reads values of a tensor (__bool__). Its forward must run on the meta device"),
        (
            Outside(),
            " computes (mul) with a tensor that is neither a parameter nor a buffer of the network, and stays ",
        ),
        (Outside(), "Register it (self.register_buffer), or make it in the forward, on the input's device."),
        (Sized(), ' raises AssertionError ("images have 32 columns"). Run the network on the example first'),
        (Unequal(), " cannot compute add of tensors of shape (2, 3, 8, 10) and (2, 2, 8, 10); check the example's"),
        (
            conv(4, 5),
            ': "1" (Conv2d) cannot compute conv2d of tensors of shape (2, 3, 8, 10) and (5, 4, 1, 1) and (5,);',
        ),
    ],
)
def test_why_a_network_cannot_be_followed_is_said_about_the_network(net, words):
    with pytest.raises(PlanError) as caught:
        trace(nn.Sequential(nn.Identity(), net), X)
    assert words in str(caught.value)
    assert str(caught.value.__cause__) not in str(caught.value) or isinstance(caught.value.__cause__, AssertionError)


def test_an_example_of_other_arguments_is_refused():
    with pytest.raises(
        PlanError, match=r"its forward takes other arguments than the 2 of the example\. Give a tuple of"
    ):
        trace(conv(), (X, X))


def test_tensors_that_were_never_registered_are_followed():
    flow = trace(Constant(), X)
    assert [(call.name, call.shape) for call in flow.calls] == [("mul", (2, 3, 8, 10))]
    net = Constant()
    trace(net, X)
    assert net.scales[0].device.type == "cpu"


def test_a_parameter_in_a_list_is_the_same_parameter():
    net = Net(lambda net, x: F.conv2d(net.a(x), net.weights[0]), a=conv(3, 3))
    net.weights = [net.a.weight]
    assert trace(net, X).borrowed == {"a": "conv2d"}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is:FutureWarning")
def test_modules_of_torchscript_are_followed():
    flow = trace(nn.Sequential(conv(3, 5), torch.jit.script(nn.Sequential(nn.Sigmoid())), conv(5, 4)), X)
    assert [call.path for call in flow.calls if call.layer is not None] == ["0", "2"]
    assert flow.calls[-1].shape == (2, 4, 8, 10)


# numbers of channels


def test_numbers_of_channels_that_are_used_are_noted():
    def forward(net, x):
        y = net.a(x)
        z = y * y.shape[1] ** 0.5 + y.shape[2]
        return net.b(z if x.shape[1] == 3 else y) / net.b.out_channels

    flow = trace(Net(forward, a=conv(3, 5), b=conv(5, 4)), X)
    assert flow.measured == {0: "mul in the forward of Net", "b": "div in the forward of Net"}
    assert flow.calls[1].arguments[1] == 5**0.5
    assert [type(call.arguments[1]) for call in flow.calls[1:3]] == [float, int]


def test_numbers_of_channels_that_nobody_uses_are_not_noted():
    def forward(net, x):
        y = net.a(x)
        return y.shape[1] and y.reshape(len(y), -1) if y.ndim != 4 else y.view(y.size(0), -1)

    assert trace(Net(forward, a=conv()), X).measured == {}


def test_layers_know_their_channels_as_before():
    net = nn.Sequential(conv(3, 6), nn.GroupNorm(3, 6), nn.InstanceNorm2d(6), conv(6, 6, groups=6))
    assert trace(net, X).measured == {}
    assert [type(number) for number in (net[0].in_channels, net[1].num_groups, net[3].groups)] == [int, int, int]


def test_an_example_of_the_wrong_shape_is_refused():
    with pytest.raises(PlanError, match=r"of shape \(2, 4, 8, 10\): .*check the example's shape first"):
        trace(conv(3, 5), torch.zeros(2, 4, 8, 10))


def test_what_only_teaches_is_reached_in_training_alone():
    net = zoo.create("cyclegan", width=0.07, width_ba=0.07)
    reached = [{call.path.split(".")[0] for call in trace(net.train(mode), torch.zeros(1, 3, 8, 12)).calls}
               for mode in (True, False)]  # fmt: skip
    assert reached == [{"generator_ab", "generator_ba"}, {"generator_ab"}]


def test_a_hooked_copy_calls_hooks_of_others_and_has_its_own():
    class Owner:
        def __init__(self):
            self.seen, self.files = [], [open(__file__)]  # noqa: SIM115  # what cannot be copied

        def collect(self, module, inputs, output):
            self.seen.append(module)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(2, 3, 1), 1.0
            self.conv.register_forward_pre_hook(self.scaled)

        def scaled(self, module, inputs):
            return (inputs[0] * self.scale,)

        def forward(self, x):
            return self.conv(x)

    net, owner, x = Scaled(), Owner(), torch.randn(1, 2, 5, 7)
    net.conv.register_forward_hook(owner.collect)
    copied = hooked_copy(net)
    copied.scale = 2.0
    assert torch.equal(copied(x), net.conv(2 * x))
    assert owner.seen == [copied.conv, net.conv]
    owner.files[0].close()


def test_a_picture_of_a_network_has_its_layers_hooks_and_values_and_copies_none_of_these():
    net = nn.Sequential(QuantConv2d(2, 3, 1), nn.BatchNorm2d(3)).requires_grad_(False)
    net[1].weight.requires_grad_()
    net[1].bias = net[1].weight
    net[0].register_forward_hook(lambda *_: None)
    picture = _brought(net, [*net.parameters(), *net.buffers()])
    assert list(picture.state_dict()) == list(net.state_dict())
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(picture.buffers(), net.buffers(), strict=True))
    assert picture[1].bias is picture[1].weight
    assert [p.requires_grad for p in picture.parameters()] == [p.requires_grad for p in net.parameters()]
    assert picture[0]._forward_hooks is net[0]._forward_hooks
    assert picture[0] is not net[0]
    assert host_picture(net) is net
