import copy
import pickle
from contextlib import nullcontext
from threading import Barrier, Thread
from unittest import mock

import pytest
import timm
import torch
import torch.distributed as dist
from on_gpu import Calls, as_on_gpu
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, spectral_norm
from torch.utils.checkpoint import checkpoint
from torchvision.models import mobilenet_v2

import qprune
from qprune.flow import trace
from qprune.layers import (
    CompressedConv2d,
    CompressedConvTranspose2d,
    CompressedLinear,
    QuantConv2d,
    ReadyWeights,
    recompute_in_backward,
)
from qprune.schedules import QuantizeFrom
from qprune.shrinking import Mode, analyse, apply_cuts, fold_norms
from qprune.training import ScheduleDriver


def layer(kind=CompressedConv2d, shape=(4, 4, 3), *, masked=False, measuring=True, known=True, bits=4, **options):
    """A layer whose weight is masked and quantized; ``known`` is what the driver said of whether it is active."""
    host = kind(*shape)
    if masked:
        host.add_mask("weight", importance="weight-l1").keep[1] = False
    quant = host.add_quant("weight", bits, **({"per": "channel"} | options))
    if options.get("numerics") != "paper":
        quant.calibrate(host.weight.detach() * 0.7)
    quant.active.fill_(known is not False)
    quant.told_active, quant.measuring = known, measuring
    return host


KINDS = {
    "quantized": {},
    "masked": {"masked": True},
    "asymmetric": {"symmetric": False, "bits": 8},
    "not yet active": {"known": False},
    "masked and not yet active": {"known": False, "masked": True},
    "active as the buffer says": {"known": None},
    "without measuring": {"measuring": False},
    "grouped": {"kind": lambda *_: CompressedConv2d(4, 4, 3, groups=4)},
}
APART = {
    "one range": {"per": "tensor"},
    "clipped": {"gradient": "clipped"},
    "the paper's numerics": {"numerics": "paper"},
    "learned": {"range": "learned"},
    "transposed": {"kind": CompressedConvTranspose2d},
    "float64": {"kind": lambda *shape: CompressedConv2d(*shape, dtype=torch.float64)},
}


def net_of(*kinds):
    torch.manual_seed(1)
    return nn.Sequential(*[layer(**(KINDS | APART)[kind]) for kind in kinds]).train()


def run(net, x):
    """Result, gradients and whatever was measured, of a forward."""
    x = x.clone().requires_grad_()
    y = net(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    gradients = [p.grad for p in net.parameters()]
    return [y.detach(), x.grad, *(g for g in gradients if g is not None), *net.buffers()]


def images(net):
    return torch.randn(2, 4, 20, 20, dtype=net[0].weight.dtype)


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_are_one_operation_with_the_values_gradients_and_ranges_of_many(layout):
    net = net_of(*KINDS).to(memory_format=layout)
    other, x = copy.deepcopy(net), images(net)
    weights = ReadyWeights(net)
    with as_on_gpu():
        for _ in range(2):
            with Calls() as calls, weights.ready():
                got = run(net, x)
            assert same(got, run(other, x))
            assert calls.own == {"compress_rows": 1, "pass_gradient": 2}  # those that are masked
    assert all(a.weight.grad.stride() == b.weight.grad.stride() for a, b in zip(net, other, strict=True))


@pytest.mark.parametrize("kind", APART)
def test_what_is_not_simple_is_left_to_its_layer(kind):
    net = net_of(kind, kind)
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu(), Calls() as calls:
        with ReadyWeights(net).ready():
            got = run(net, x)
        assert same(got, run(other, x))
    assert "compress_rows" not in calls.own


def written(host):
    with torch.no_grad():
        host.weight.mul_(0.5)


def exchanged(host):
    host.weight.data = host.weight.data * 0.5


def exchanged_in_place(host):
    values, place = host.weight.detach() * 0.5, host.weight.data_ptr()
    for _ in range(50):
        host.weight.data = values.clone()
        if host.weight.data_ptr() == place:  # where the first ones lay
            break


def written_in_inference(host):
    with torch.inference_mode():
        host.weight.mul_(0.5)
        host.weight_quant.scale.mul_(2)


def stepped(host):
    host.weight.grad = torch.ones_like(host.weight)
    torch.optim.SGD([host.weight], lr=0.1, fused=True).step()  # whose writes torch does not count
    host.weight.grad = None


def loaded(host):
    host.load_state_dict({name: tensor + 1 for name, tensor in host.state_dict().items() if name.endswith("weight")},
                         strict=False)  # fmt: skip


def assigned(host):
    host.load_state_dict({name: tensor.clone() for name, tensor in host.state_dict().items()}, assign=True)


def parametrized(host):
    parametrizations.weight_norm(host)


def replaced(host):
    host.weight = nn.Parameter(host.weight.detach() * 0.5)


def refreshed(host):
    host.weight_mask.keep.copy_(torch.tensor([False, True, True, True]))


def rescaled(host):
    host.weight_quant.scale.mul_(2)


def moved(host):
    host.weight_quant.scale = host.weight_quant.scale * 2


def evaluated(host):
    host.eval()


def stopped(host):
    host.weight_quant.measuring = False


def started_later(host):
    host.weight_quant.told_active = False


def hooked(host):
    host.weight_quant.register_forward_hook(lambda quant, inputs, y: y * 0)


def emptied(host):
    host.weight_quant = None


@pytest.mark.parametrize(
    "change",
    [
        written, exchanged, exchanged_in_place, written_in_inference, stepped, loaded, assigned, parametrized, replaced,
        refreshed, rescaled, moved, evaluated, stopped, started_later, hooked, emptied,
    ],
)  # fmt: skip
def test_layer_computes_by_itself_what_was_changed_since(change):
    net = net_of("masked", "quantized")
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu():
        with ReadyWeights(net).ready():
            change(net[0])
            got = run(net, x)
        change(other[0])
        assert same(got, run(other, x))


def test_weights_that_nobody_used_are_not_measured():
    net = net_of("quantized", "quantized")
    x = images(net)
    with as_on_gpu(), ReadyWeights(net).ready():
        net[0](x)
    assert net[0].weight_quant.pending_high.isfinite().all()
    assert not net[1].weight_quant.pending_high.isfinite().any()


def test_layer_that_is_called_twice_computes_twice():
    net = net_of("quantized")
    twice, x = nn.Sequential(net[0], net[0]), images(net)
    other = copy.deepcopy(twice)
    with as_on_gpu(), Calls() as calls:
        with ReadyWeights(twice).ready():
            got = run(twice, x)
        assert same(got, run(other, x))
    assert calls.own["compress_rows"] == 1


def test_weight_of_two_layers_is_made_for_each():
    net = net_of("quantized", "asymmetric")
    net[1].weight = net[0].weight
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu():
        with ReadyWeights(net).ready():
            got = run(net, x)
        assert same(got, run(other, x))


def test_linear_weights_and_wide_ones_together():
    torch.manual_seed(1)
    net = nn.Sequential(layer(CompressedLinear, (5, 3)), layer(CompressedLinear, (3, 70)))
    other, x = copy.deepcopy(net), torch.randn(2, 5)
    with as_on_gpu(), Calls() as calls:
        with ReadyWeights(net).ready():
            got = run(net, x)
        assert same(got, run(other, x))
    assert calls.own["compress_rows"] == 1


def test_nothing_stays_behind_even_where_the_forward_failed():
    net = net_of("quantized", "masked")
    weights, before = ReadyWeights(net), [set(vars(host)) for host in net]
    with as_on_gpu():
        with weights.ready():
            run(net, images(net))
            copy.deepcopy(net)
        with pytest.raises(RuntimeError), weights.ready():
            net(torch.randn(2, 3, 9, 9))
    assert [set(vars(host)) for host in net] == before
    pickle.dumps(net)


def test_on_the_cpu_nothing_is_made_ready():
    net = net_of("quantized")
    with Calls() as calls, ReadyWeights(net).ready():
        run(net, images(net))
        assert "ready_weight" not in vars(net[0])
    assert calls.own == {}


def test_layers_that_compute_again_in_the_backward_make_their_own():
    net = recompute_in_backward(net_of("quantized", "masked"))
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu(), Calls() as calls:
        with ReadyWeights(net).ready():
            got = run(net, x)
        assert same(got, run(other, x))
    assert "compress_rows" not in calls.own


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_have_the_same_gradients(reentrant):
    net = net_of("quantized", "masked")
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu():
        with ReadyWeights(net).ready():
            y = checkpoint(net, x.requires_grad_(), use_reentrant=reentrant)
        y.sum().backward()
        other(x).sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_torch_func_and_compiled_code_have_their_own_values():
    net = net_of("without measuring", "masked").eval()
    x, values, graphs = images(net), {name: p * 2 for name, p in net.named_parameters()}, []

    def note(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    expected = net(x), torch.func.functional_call(net, values, x), torch.func.jacrev(net)(x[:1])
    compiled = torch.compile(net, fullgraph=True, backend=note)
    with as_on_gpu():
        for _ in range(2):
            with ReadyWeights(net).ready():
                assert torch.equal(torch.func.functional_call(net, values, x), expected[1])
                assert torch.equal(torch.func.jacrev(net)(x[:1]), expected[2])
                assert torch.equal(compiled(x), expected[0])
    assert len(graphs) == 1  # and no other one for other ready weights
    assert not [node for node in graphs[0].graph.nodes if "qprune" in str(node.target)]
    torch._dynamo.reset()


def test_copies_that_exchange_gradients_have_the_same_ones(tmp_path):
    net = net_of("quantized", "masked")
    other, x = copy.deepcopy(net), images(net)
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        exchanging = DistributedDataParallel(net)
        with as_on_gpu(), Calls() as calls:
            with ReadyWeights(net).ready():
                got = run(exchanging, x)
            assert same(got, run(other, x))
    finally:
        dist.destroy_process_group()
    assert calls.own["compress_rows"] == 1


def test_fake_weights_are_left_to_their_layers():
    with FakeTensorMode(), torch.device("cuda"):
        net = nn.Sequential(CompressedConv2d(4, 4, 3), CompressedConv2d(4, 4, 3)).train()
        for host in net:
            host.add_quant("weight", 4, per="channel").measuring = True
        with Calls() as calls, ReadyWeights(net).ready():
            net(torch.randn(2, 4, 9, 9))
    assert "compress_rows" not in calls.own


def test_operation_states_what_it_writes():
    x = [torch.randn(3, 2), torch.randn(2, 1, 3, 3)]
    ends = [[torch.empty(len(w)) for w in x] for _ in range(2)]
    grid = [[torch.ones(3), None], [None, None], [None, None], [0, -7], [15, 7]]
    arguments = (x, [torch.empty_like(w) for w in x], *ends, [None, torch.tensor([True, False])], *grid)
    torch.library.opcheck(
        torch.ops.qprune.compress_rows.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


def test_layers_that_became_plain_meanwhile_are_left_alone():
    net = net_of("quantized", "quantized")
    weights = ReadyWeights(net)
    net[0].__class__ = nn.Conv2d  # as a cut does with a host that has nothing left to do
    with as_on_gpu(), weights.ready():
        y = net(torch.randn(2, 4, 6, 6))
    assert y.isfinite().all()


def made_in_inference(net):
    with torch.inference_mode():
        net[0].weight_quant.scale = net[0].weight_quant.scale * 2


def spectral(net):
    parametrizations.spectral_norm(net[0])
    spectral_norm(net[1])


def of_bfloat16(net):
    net.bfloat16()


@pytest.mark.parametrize("change", [made_in_inference, spectral, of_bfloat16])
def test_what_a_network_was_made_to_be_before(change):
    net = net_of("masked", "quantized").eval()
    change(net)
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu():
        with ReadyWeights(net).ready():
            y = net(x)
        assert torch.equal(y, other(x))


def test_network_of_another_dtype_since():
    net = net_of("masked", "quantized")
    other, x = copy.deepcopy(net).bfloat16(), images(net).bfloat16()
    with as_on_gpu():
        with ReadyWeights(net).ready():
            got = run(net.bfloat16(), x)
        assert same(got, run(other, x))


def test_block_of_inference_mode_gives_values_that_gradients_can_be_asked_of():
    net = net_of("masked", "quantized")
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu():
        with torch.inference_mode(), ReadyWeights(net).ready(), torch.inference_mode(False):
            got = run(net, x)
        assert same(got, run(other, x))


def test_copies_and_files_have_nothing_ready():
    net = net_of("quantized")
    with as_on_gpu(), ReadyWeights(net).ready():
        assert net[0].ready_weight is not None
        copies = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    assert [each[0].ready_weight for each in copies] == [None, None]


def test_shallow_copy_takes_nothing_after_the_end():
    net = net_of("quantized")
    with as_on_gpu():
        with ReadyWeights(net).ready():
            copied = copy.copy(net[0])
        copied.weight.data.mul_(0.5)
        x = images(net)
        assert torch.equal(copied(x), copy.deepcopy(net)(x))


def test_threads_that_call_a_layer_together_are_not_given_the_same_values():
    net = net_of("quantized")
    x, expected, found, meeting = images(net), copy.deepcopy(net), [], Barrier(2)

    def meet(state):
        return lambda *arguments: (state(*arguments), meeting.wait(20))[0]

    from qprune.layers import ready

    with as_on_gpu(), ReadyWeights(net).ready(), mock.patch.object(ready, "_state", meet(ready._state)):
        threads = [Thread(target=lambda: found.append(net(x))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [torch.equal(y, expected(x)) for y in found] == [True, True]
    for y in found:
        y.sum().backward()


def test_replicas_of_data_parallel_compute_their_own():
    net = net_of("masked")
    replica, x = None, images(net)
    with as_on_gpu():
        with ReadyWeights(net).ready():
            replica = net[0]._replicate_for_data_parallel()
            replica.weight, replica.bias = net[0].weight * 0.5, net[0].bias
            y = replica(x)
        written(net[0])
        assert torch.equal(y, net(x))


def test_blocks_within_blocks():
    net = net_of("masked", "quantized")
    other, x = copy.deepcopy(net), images(net)
    outer, inner = ReadyWeights(net), ReadyWeights(net[0])
    with as_on_gpu():
        with outer.ready():
            with inner.ready():
                got = run(net, x)
            again = run(net, x)
        assert same(got[:2], run(other, x)[:2])
        assert same(again, run(other, x))
    assert not any("ready_weight" in vars(host) for host in net)


@pytest.mark.parametrize("overflows", [False, True])
def test_block_may_hold_whole_steps_of_an_optimizer_and_a_driver(overflows):
    torch.manual_seed(0)
    net = nn.Sequential(*[QuantConv2d(4, 4, 3, schedule=QuantizeFrom(3)) for _ in range(2)])
    other, batches = copy.deepcopy(net), torch.randn(6, 2, 4, 12, 12)
    for each, weights in ((net, ReadyWeights(net)), (other, None)):
        optimizer, driver = torch.optim.SGD(each.parameters(), lr=0.1, fused=True), ScheduleDriver(each)
        for x in batches:
            with as_on_gpu(), nullcontext() if weights is None else weights.ready():
                each(x).square().mean().backward()
                if not overflows:  # as a GradScaler skips steps
                    optimizer.step()
                optimizer.zero_grad()
                driver.step()
    assert same([*net.state_dict().values()], [*other.state_dict().values()])


def steps_of_two(nets, blocks):
    """A generator that learns, through a second network that is looked at, frozen, twice, and trained in between."""
    generator, judge = nets
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.01) for net in nets]
    torch.manual_seed(2)
    for _ in range(2):
        x = torch.randn(2, 4, 20, 20)
        with blocks[0](), blocks[1]():
            fake = generator(x)
            (judge(x).mean() - judge(fake.detach()).mean()).backward()  # the second forward of a step
            optimizers[1].step()
            for parameter in judge.parameters():
                parameter.data.clamp_(-0.05, 0.05)
            judge.requires_grad_(False)
            judge(fake).mean().backward()
            judge.requires_grad_(True)
            optimizers[0].step()
        with torch.no_grad():
            generator.eval()(x)
            generator.train()
        for optimizer in optimizers:
            optimizer.zero_grad()
        for net in nets:
            for host in net:
                host.weight_quant.commit()
    return [tensor for net in nets for tensor in net.state_dict().values()]


def test_two_networks_of_which_one_judges_the_other():
    nets = [net_of("masked", "quantized"), net_of("asymmetric", "quantized")]
    others = copy.deepcopy(nets)
    with as_on_gpu():
        got = steps_of_two(nets, [ReadyWeights(net).ready for net in nets])
        assert same(got, steps_of_two(others, [nullcontext, nullcontext]))


NETWORKS = {
    "torchvision": lambda: mobilenet_v2(width_mult=0.25, num_classes=5),
    "timm": lambda: timm.create_model("test_resnet", num_classes=5),
}


@pytest.mark.parametrize("library", NETWORKS)
def test_networks_of_libraries_train_to_the_same_bits_with_parts_of_batches(library):
    torch.manual_seed(0)
    x, target = torch.randn(2, 2, 3, 32, 32), torch.tensor([1, 4])
    rule = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 1}
    net = qprune.swap(NETWORKS[library](), x[0], quantize=[rule])
    other, calls = copy.deepcopy(net), Calls()
    for each, weights in ((net, ReadyWeights(net)), (other, None)):
        optimizer, driver = torch.optim.SGD(each.parameters(), lr=0.1), ScheduleDriver(each, x[0])
        torch.manual_seed(1)
        for _ in range(2):
            for part in x:
                with as_on_gpu(), calls, nullcontext() if weights is None else weights.ready():
                    nn.functional.cross_entropy(each(part), target).backward()
            optimizer.step()
            optimizer.zero_grad()
            driver.step()
    assert same([*net.state_dict().values()], [*other.state_dict().values()])
    assert calls.own["compress_rows"] == 4


def cut(net):
    mode = Mode(settled=lambda mask: True, training=True)
    apply_cuts(net, analyse(net, trace(net, torch.zeros(1, 4, 20, 20)), mode).cuts)
    assert net[0].out_channels == 2


def fold(net):
    assert fold_norms(net.eval(), trace(net, torch.zeros(1, 4, 20, 20)))[0]


@pytest.mark.parametrize("change", [cut, fold])
def test_network_that_was_cut_or_folded_since(change):
    net = net_of("quantized", "quantized")
    net.insert(1, nn.BatchNorm2d(4))
    net[2].add_mask("input").keep[2:] = False
    other, x = copy.deepcopy(net), images(net)
    with as_on_gpu():
        with ReadyWeights(net).ready():
            change(net)
            got = run(net, x)
        change(other)
        assert same(got, run(other, x))
