import copy
import math
import subprocess
import sys

import pytest
import torch
from contract import run_layer_contract
from on_gpu import Calls, as_on_gpu
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from qprune.layers import (
    ChannelMask,
    CompressedBatchNorm2d,
    CompressedConv2d,
    CompressedReLU,
    CompressedReLU6,
    FakeQuant,
    LearnedQuant,
    PrunedQuantConv2d,
    PrunedQuantLinear,
)
from qprune.layers import fused as fused_room
from qprune.layers.fused import fused, fuses

HOSTS = {"relu": CompressedReLU, "relu6": CompressedReLU6, "norm": lambda: CompressedBatchNorm2d(3)}


def values():
    x = torch.randn(2, 3, 5, 7) * 4
    x[0, 0, 0, :4] = torch.tensor([0.0, -0.0, 6.0, 1e30])
    return x


def make(host, *, masked=True, quantized=True, measuring=True, known=None, **options):
    layer = HOSTS[host]()
    if masked:
        mask = layer.add_mask("output", channels=3)
        mask.keep[1], mask.measuring = False, measuring
    if quantized:
        per_channel = options.get("per") == "channel"
        quant = layer.add_quant("output", 4, channels=3, **options)
        x = torch.tensor([-1.0, 5.0]).view(1, 1, 2)
        quant.calibrate(x.expand(2, 3, 2) if per_channel else x)
        quant.active.fill_(known is not False)
        quant.told_active, quant.measuring = known, measuring
    return layer


def run(layer, *inputs):
    """Results, gradients and whatever the layer has measured, of forwards that share one backward."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    results = [layer(x * 1) for x in inputs]
    sum((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in results).backward()
    return [*(y.detach() for y in results), *(x.grad for x in inputs), *layer.parameters(), *layer.buffers()]


# ---- one operation, the same values


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("measuring", [False, True])
@pytest.mark.parametrize("known", [None, False, True])
@pytest.mark.parametrize("mode", [{}, {"per": "channel"}, {"gradient": "clipped"}, {"symmetric": True}], ids=str)
def test_site_is_one_operation_with_the_values_and_gradients_of_many(host, masked, quantized, measuring, known, mode):
    if not masked and not quantized:
        return
    one = make(host, masked=masked, quantized=quantized, measuring=measuring, known=known, **mode)
    many, x = copy.deepcopy(one), values()
    with as_on_gpu(), Calls() as calls:
        got = run(one, x, 2 * x)
    for a, b in zip(got, run(many, x, 2 * x), strict=True):
        assert torch.equal(a, b)
    does = masked or (quantized and (measuring or known is not False)) or host != "norm"
    assert calls.own.get("compress_site", 0) == 2 * does
    changes = host != "norm" or masked or (mode == {"gradient": "clipped"} and known is not False)
    assert calls.own.get("pass_gradient", 0) == 2 * changes


@pytest.mark.parametrize(("host", "plain"), [(CompressedReLU, nn.ReLU), (CompressedReLU6, nn.ReLU6)])
def test_rectifier_that_overwrites_its_input_still_does(host, plain):
    layer, x = host(inplace=True), values()
    layer.add_mask("output", channels=3).keep[1] = False
    rectified = plain()(x)
    with as_on_gpu(), Calls() as calls:
        y = layer(x)
    assert torch.equal(x, rectified)
    assert torch.equal(y, rectified * layer.output_mask.keep.view(3, 1, 1))
    assert calls.own == {"compress_site": 1}


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_weight_is_one_operation_in_front_and_none_behind(per):
    one, x = CompressedConv2d(4, 6, 3, bias=False), torch.randn(2, 4, 5, 7)
    one.add_quant("weight", 4, per=per).calibrate(one.weight).measuring = True
    many = copy.deepcopy(one)
    with as_on_gpu(), Calls() as calls:
        got = run(one, x)
    assert all(map(torch.equal, got, run(many, x)))
    assert torch.equal(one.weight.grad, many.weight.grad)
    assert calls.own == {"compress_site": 1}


@pytest.mark.parametrize(
    ("cls", "args", "options"),
    [
        (CompressedReLU6, (), {}),
        (CompressedReLU, (), {}),
        (CompressedBatchNorm2d, (4,), {}),
        (PrunedQuantConv2d, (6, 4, 3), {"act_bits": 3, "weight_bits": 4}),
        (PrunedQuantConv2d, (6, 4, 3), {"at": "weight", "act_at": "output", "gradient": "clipped"}),
        (PrunedQuantLinear, (6, 4), {"numerics": "paper"}),
        (PrunedQuantLinear, (6, 4), {"range": "learned"}),
    ],
)
def test_layers_keep_their_promises(cls, args, options):
    with as_on_gpu():
        run_layer_contract(cls, *args, **options)


def test_dropped_channel_of_infinities_is_zero_and_gets_no_gradient():
    x = torch.randn(2, 3, 5, 7)
    x[:, 1] = torch.tensor([torch.nan, torch.inf]).view(2, 1, 1)
    with as_on_gpu():
        y, slope, *_ = run(make("relu6", measuring=False, known=True), x)
    assert (y[:, 1] == 0).all()
    assert (slope[:, 1] == 0).all()


# ---- memory


def remembered(layer, x):
    """Bytes that autograd keeps for the backward, beside the layer's result and its buffers."""
    kept = {}
    own = {buffer.untyped_storage().data_ptr() for buffer in layer.buffers()}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        y = layer(x.clone().requires_grad_() * 1)
    return sum(size for at, size in kept.items() if at not in own | {y.untyped_storage().data_ptr()})


@pytest.mark.parametrize("host", ["relu", "relu6"])
@pytest.mark.parametrize("known", [None, False, True])
@pytest.mark.parametrize("gradient", ["straight", "clipped"])
def test_no_more_is_remembered_than_by_many_operations(host, known, gradient):
    layer, x = make(host, measuring=False, known=known, gradient=gradient), values()
    with as_on_gpu():
        one = remembered(layer, x)
    assert one <= remembered(layer, x)
    assert one == (0 if known is False else x.numel())  # a byte for each value, where the result does not tell


# ---- where it does not reach


def parts(importance="activation-l1", **options):
    mask = ChannelMask(3, importance=importance)
    quant = FakeQuant(4, **options)
    mask.measuring = True
    return mask, quant


def hook(part):
    part.register_forward_hook(lambda *_: None)


class Other(ChannelMask):
    pass


BEYOND = {
    "a mask with hooks": lambda mask, quant, x: (hook(mask), (x, mask, quant))[1],
    "a quantizer with hooks": lambda mask, quant, x: (hook(quant), (x, mask, quant))[1],
    "scores by gradients": lambda mask, quant, x: (x, parts("taylor")[0], quant),
    "other scores": lambda mask, quant, x: (x, parts("activation-l0")[0], quant),
    "the paper's numerics": lambda mask, quant, x: (x, mask, FakeQuant(4, numerics="paper")),
    "learned steps": lambda mask, quant, x: (x, mask, LearnedQuant(4)),
    "a class of one's own": lambda mask, quant, x: (x, Other(3), quant),
    "float64": lambda mask, quant, x: (x.double(), mask, quant),
    "integers": lambda mask, quant, x: (x.int(), mask, quant),
    "no values": lambda mask, quant, x: (x[:0], mask, quant),
    "another number of channels": lambda mask, quant, x: (x[:, :2], mask, quant),
    "another device": lambda mask, quant, x: (x, mask.to("meta"), quant),
    "two axes": lambda mask, quant, x: (x, mask, FakeQuant(4, channels=5, axis=2)),
}


@pytest.mark.parametrize("reason", BEYOND)
def test_what_it_does_not_reach_is_left_to_many_operations(reason):
    x = torch.randn(2, 3, 5, 7)
    with as_on_gpu():
        assert fuses(x, *parts())
        assert not fuses(*BEYOND[reason](*parts(), x))


@pytest.mark.parametrize("importance", ["taylor", "activation-l0", "bn-scale"])
def test_how_a_mask_is_ranked_does_not_matter_while_it_measures_nothing(importance):
    mask, quant = parts(importance)
    mask.measuring = False
    with as_on_gpu():
        assert fuses(torch.randn(2, 3, 5, 7), mask, quant)


def test_forward_of_ones_own_is_called():
    layer = make("relu")
    layer.output_mask.forward = lambda x: x * 0
    with as_on_gpu():
        assert not layer(values()).any()


def test_number_of_channels_is_refused_in_torchs_words():
    with as_on_gpu(), pytest.raises(RuntimeError, match="must match the size"):
        make("relu", quantized=False)(torch.randn(2, 4, 5, 7))


def test_on_the_cpu_there_is_no_such_operation():
    with Calls() as calls:
        run(make("relu6", known=True), values())
    assert calls.own == {}


@pytest.mark.parametrize(
    "transform", [lambda f: torch.func.vmap(lambda x: f(x[None])), lambda f: torch.func.grad(lambda x: f(x).sum())]
)
def test_torch_func_meets_many_operations(transform):
    layer, x = make("relu6", measuring=False), values()
    with as_on_gpu(), Calls() as calls:
        got = transform(layer)(x)
    assert calls.own == {}
    assert torch.equal(got, transform(layer)(x))


def test_compiled_and_exported_code_holds_plain_operations_alone():
    layer, x, graphs = make("relu6", measuring=False).eval(), values(), []

    def note(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    with as_on_gpu():
        y = torch.compile(layer, fullgraph=True, backend=note)(x)
        graphs.append(torch.export.export(layer, (x,)).graph_module)
        assert torch.equal(y, layer(x))
    assert len(graphs) == 2
    assert not [node for graph in graphs for node in graph.graph.nodes if "qprune" in str(node.target)]
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
def test_traced_code_holds_plain_operations_alone():
    layer, x = make("norm", masked=False, measuring=False).eval(), values()  # torch cannot trace masks
    with as_on_gpu(), torch.no_grad():
        traced = torch.jit.trace(layer, x, check_trace=False)
        assert torch.equal(traced(x), layer(x))
    assert "compress_site" not in str(traced.inlined_graph)


# ---- the operation itself, to whoever traces


def arguments(x):
    keep, scale = torch.tensor([True, False, True]), torch.tensor(0.5)
    score, count = torch.zeros(3), torch.tensor(0)
    ends = torch.tensor(math.inf), torch.tensor(-math.inf)
    passed = torch.empty_like(x, dtype=torch.bool)
    grid = scale, torch.tensor(3, dtype=torch.int32), torch.tensor(True), 0, 15, True
    return x, torch.empty_like(x), passed, 1, 6.0, keep, score, count, *ends, True, False, *grid


def test_operations_state_what_they_write_and_can_be_faked():
    x = values()
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.qprune.compress_site.default, arguments(x), test_utils=checks)
    passed = torch.rand(x.shape) > 0.5
    gradient = (x, torch.empty_like(x), 1, None, None, passed, torch.tensor([True, False, True]))
    torch.library.opcheck(torch.ops.qprune.pass_gradient.default, gradient, test_utils=checks)


def test_function_that_calls_it_is_one_node_when_it_is_compiled_or_exported():
    class Site(nn.Module):
        def forward(self, x, *others):
            y = torch.empty_like(x)
            torch.ops.qprune.compress_site.default(x, y, *others[1:])
            return y, others[5]

    inputs, graphs = arguments(values()), []
    expected = Site()(*copy.deepcopy(inputs))

    def note(graph, example):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    assert all(map(torch.equal, torch.compile(Site(), fullgraph=True, backend=note)(*copy.deepcopy(inputs)), expected))
    program = torch.export.export(Site(), copy.deepcopy(inputs))
    assert all(map(torch.equal, program.module()(*copy.deepcopy(inputs)), expected))
    for graph in (*graphs, program.graph_module):
        called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        assert [name for name in called if "qprune" in name or "empty" not in name] == ["qprune.compress_site.default"]
    torch._dynamo.reset()


def test_fake_tensors_of_a_gpu_meet_one_operation_without_one():
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        mask, quant, x = ChannelMask(3), FakeQuant(4), torch.randn(2, 3, 5, 7)
        assert fuses(x, mask, quant)
        with Calls() as calls:
            y = fused(x, mask, quant, ceiling=6.0)
    assert (y.device.type, y.shape) == ("cuda", x.shape)
    assert calls.own == {"compress_site": 1}


def test_training_on_the_cpu_never_imports_triton():
    code = (
        "import sys, torch; before = set(sys.modules); from qprune.layers import CompressedReLU; r = CompressedReLU(); "
        "r.add_mask('output', channels=3); r.add_quant('output', 4); "
        "r(torch.randn(2, 3, 5, requires_grad=True)).sum().backward(); print(*(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "qprune.layers.fused" in result.stdout.split()
    assert not {"triton", "qprune.layers.gpu_kernels"} & set(result.stdout.split())


def test_the_environment_can_forbid_the_kernels(monkeypatch):
    gpu = torch.device("cuda:0")
    has_triton = fused_room._has_triton.__wrapped__  # not what is remembered of the device
    monkeypatch.setattr(fused_room.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert has_triton(gpu)
    monkeypatch.setenv("QPRUNE_TRITON", "0")
    assert not has_triton(gpu)
