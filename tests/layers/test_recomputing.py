"""Backward passes that compute masked and rounded operands again: the same bits from less memory."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
import torchvision
from on_gpu import as_on_gpu
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import qprune
from qprune import zoo
from qprune.errors import TrainingError
from qprune.layers import (
    CompressedReLU,
    CompressedReLU6,
    PrunedConv2d,
    PrunedQuantConv2d,
    PrunedQuantConvTranspose2d,
    PrunedQuantLinear,
    QuantConv2d,
    recompute_in_backward,
    sites,
)
from qprune.training import make_average

NETS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25),
    "unet": lambda: zoo.create("unet", classes=5, width=0.125),
    "densenet121": lambda: zoo.create("densenet121", classes=5, width=0.25),
}
WEIGHTED = ["Conv2d", "ConvTranspose2d", "Linear"]


def compressed(name: str, side: str, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    net = NETS[name]()
    there = {type(module).__name__ for module in net.modules()}
    weighted = [kind for kind in WEIGHTED if kind in there]
    acts: dict[str, Any] = {"types": weighted, "at": "input", "skip": [0]}
    if side == "output":
        acts = {"types": [kind for kind in ("ReLU", "ReLU6", "BatchNorm2d") if kind in there], "at": "output"}
    prune = {"sites": [acts], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}}
    weights = {"sites": [{"types": weighted, "at": "weight"}], "bits": 4, "per": "channel", "start": 2} | options
    inputs = {"sites": [acts], "bits": 4, "start": 2} | options
    return qprune.swap(net, torch.zeros(2, 3, 32, 32), prune=[prune], quantize=[weights, inputs])


def trained(net: nn.Module, *, layout: Any = torch.contiguous_format, autocast: bool = False, parts: int = 1) -> Any:
    """Losses, gradients, weights and buffers after steps before masks and quantizers start, and after."""
    torch.manual_seed(2)  # of dropout
    net = net.to(memory_format=layout).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    average = make_average(net, 0.9)
    driver = qprune.ScheduleDriver(net, torch.zeros(2, 3, 32, 32), optimizer=optimizer, average=average.module)
    generator, losses = torch.Generator().manual_seed(3), []
    for _ in range(4):
        images = torch.randn(2 * parts, 3, 32, 32, generator=generator).to(memory_format=layout)
        optimizer.zero_grad()
        for part in images.chunk(parts):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = net(part).float().square().mean()
            loss.backward()
            losses.append(loss.detach())
        gradients = [each.grad.clone() for each in net.parameters() if each.grad is not None]
        optimizer.step()
        driver.step()
        average.update_parameters(net)
    return [*losses, *gradients, *net.state_dict().values(), *average.state_dict().values()]


def assert_same(one: Any, other: Any) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)  # which nothing that overflowed would be


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "channels last": {"layout": torch.channels_last},
    "bfloat16": {"autocast": True, "layout": torch.channels_last},
    "in parts": {"parts": 2},
}


CASES = [
    *(("mobilenet_v2", side, way) for side in ("input", "output") for way in WAYS),
    *(("resnet18", "input", way) for way in WAYS),  # each of its ReLUs runs at two places
    ("unet", "input", "channels last"), ("unet", "output", "bfloat16"), ("unet", "output", "in parts"),
    pytest.param("densenet121", "input", "bfloat16", marks=pytest.mark.slow),
    ("densenet121", "output", "channels last"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "side", "way"), CASES)
def test_networks_train_to_the_same_bits(name: str, side: str, way: str) -> None:
    net = compressed(name, side)
    expected = trained(copy.deepcopy(net), **WAYS[way])
    assert_same(trained(recompute_in_backward(net), **WAYS[way]), expected)


@pytest.mark.parametrize(
    "options", [{"per": "tensor", "symmetric": False}, {"per": "channel", "symmetric": True, "gradient": "clipped"}]
)
def test_networks_with_other_quantizers_train_to_the_same_bits(options: dict[str, Any]) -> None:
    net = compressed("mobilenet_v2", "input", **options)
    expected = trained(copy.deepcopy(net))
    assert_same(trained(recompute_in_backward(net)), expected)


# ---- layers by themselves

SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv": (lambda **options: PrunedQuantConv2d(4, 6, 3, padding=1, **options), (2, 4, 5, 7)),
    "depthwise": (lambda **options: PrunedQuantConv2d(4, 4, 3, groups=4, **options), (2, 4, 5, 7)),
    "transposed, in groups": (lambda **options: PrunedQuantConvTranspose2d(4, 6, 3, groups=2, **options), (2, 4, 5, 7)),
    "linear": (lambda **options: PrunedQuantLinear(4, 3, **options), (2, 4)),
    "linear of three axes": (lambda **options: PrunedQuantLinear(4, 3, bias=False, **options), (2, 5, 4)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "per channel": {},
    "per tensor": {"per": "tensor"},
    "clipped": {"gradient": "clipped"},
    "learned": {"range": "learned"},
    "paper": {"numerics": "paper"},
    "weight alone": {"act_bits": None},
    "output": {"at": "output", "act_at": "output"},
    "by gradients": {"importance": "taylor"},
}


def host(kind: str, told: bool | None = True, **options: Any) -> Any:
    torch.manual_seed(4)
    layer = SHAPES[kind][0](weight_bits=4, **({"act_bits": 4} | options))
    for site in sites(layer):
        for part in (site.mask, site.quant):
            if part is not None:
                part.measuring = True
        if site.mask is not None:
            site.mask.keep[1] = False
        if site.quant is not None:
            values = (
                torch.randn(64) if site.quant.channels is None else torch.randn(4 if site.side == "input" else 6, 9)
            )
            site.quant.calibrate(layer.rows(layer.weight.detach()) if site.side == "weight" else values)
            site.quant.told_active = told
    return layer.train()


def results(layer: Any, x: Tensor, between: Any = None) -> list[Tensor]:
    """Output and gradients, those of the gradients too, and whatever was measured."""
    x = x.clone().requires_grad_()
    parameters = [each for each in layer.parameters() if each.requires_grad]
    y = layer(x * 1.5)
    if between is not None:
        between()
    first = torch.autograd.grad(y.square().sum(), [x, *parameters], create_graph=True, allow_unused=True)
    first = [each for each in first if each is not None]
    second = torch.autograd.grad(sum(each.square().sum() for each in first), [x, *parameters], allow_unused=True)
    seen = [each.clone() for each in layer.buffers()]
    return [y.detach(), *first, *(each for each in second if each is not None), *seen]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("told", [True, None, False])
def test_gradients_have_the_same_bits_twice_over(kind: str, option: str, told: bool | None) -> None:
    layer = host(kind, told, **OPTIONS[option])
    other, x = recompute_in_backward(copy.deepcopy(layer)), torch.randn(SHAPES[kind][1])
    assert_same(results(other, x), results(layer, x))


def test_a_site_that_is_one_operation_is_made_again_by_it() -> None:
    layer = host("conv")
    other, x = recompute_in_backward(copy.deepcopy(layer)), torch.randn(2, 4, 5, 7)
    expected = results(layer, x)
    with as_on_gpu():
        assert_same(results(other, x), expected)


@pytest.mark.parametrize("option", ["per channel", "learned", "paper"])
def test_the_mode_of_the_forward_counts(option: str) -> None:
    layer = host("conv", **OPTIONS[option])
    other, x = recompute_in_backward(copy.deepcopy(layer)), torch.randn(2, 4, 5, 7)
    assert_same(results(other, x, between=other.eval), results(layer, x, between=layer.eval))
    assert not other.input_quant.training


def test_generators_that_run_twice_in_a_step_get_both_gradients() -> None:
    net = nn.Sequential(host("conv"), nn.ReLU(), QuantConv2d(6, 4, 3, padding=1))
    other, x = recompute_in_backward(copy.deepcopy(net)), torch.randn(2, 4, 5, 7)
    for each in (net, other):
        each(each(x)).square().sum().backward()
    assert_same([each.grad for each in other.parameters()], [each.grad for each in net.parameters()])


# ---- what is kept


def held(layer: Any, x: Tensor) -> tuple[Tensor, list[Any]]:
    """A result, and references to operands that the layer made of ``x`` and its weight."""
    found: list[Any] = []
    compute = layer._conv_forward
    layer._conv_forward = lambda *operands: (
        found.extend(weakref.ref(each.untyped_storage()) for each in operands[:2]) or (compute(*operands))
    )
    y = layer(x)
    gc.collect()
    return y, found


def test_operands_are_gone_after_the_forward() -> None:
    for on in (False, True):
        y, found = held(recompute_in_backward(host("conv"), on), torch.randn(2, 4, 5, 7).requires_grad_())
        assert [each() is None for each in found] == [on, on]
        y.sum().backward()


def in_bfloat16() -> list[Tensor]:
    return [each for each in gc.get_objects() if type(each) is Tensor and each.dtype == torch.bfloat16]


def test_what_autocast_makes_of_operands_is_gone_too() -> None:
    layer = recompute_in_backward(host("conv"))
    before = in_bfloat16()  # of other tests
    with torch.autocast("cpu", torch.bfloat16):
        y, found = held(layer, torch.randn(2, 4, 5, 7).requires_grad_())
    assert not any(each() for each in found)
    assert [each.shape for each in in_bfloat16() if all(each is not other for other in before)] == [y.shape]
    y.sum().backward()


@pytest.mark.parametrize("kind", [CompressedReLU, CompressedReLU6])
def test_rectifiers_keep_a_byte_per_value_for_a_quantizer(kind: Any) -> None:
    layer = kind().train()
    layer.add_quant("output", 4).calibrate(torch.tensor([0.0, 3.0])).told_active = True
    for on, kept in ((False, torch.float32), (True, torch.bool)):
        x = (torch.randn(2, 3, 5, 7) * 5).requires_grad_()
        y = recompute_in_backward(layer, on)(x)
        node = y.grad_fn
        while not hasattr(node, "saved_tensors"):
            node = node.next_functions[0][0]
        assert node.saved_tensors[0].dtype == kept
        y.sum().backward()
        assert torch.equal(x.grad, ((x > 0) & ((x < 6) | (kind is CompressedReLU))).float())


# ---- what was changed since the forward


def another_mask(layer: Any, x: Tensor) -> None:
    keep = ~layer.input_mask.keep
    while keep._version < layer.input_mask.keep._version:
        keep.logical_or_(keep)
    layer.input_mask.keep = keep


CHANGES: dict[str, Any] = {
    "input": lambda layer, x: x.add_(1),
    "weight": lambda layer, x: layer.weight.add_(1),
    "mask": lambda layer, x: layer.input_mask.refresh(0.75),
    "another mask": another_mask,
    "step size": lambda layer, x: layer.weight_quant.multiply(torch.tensor(2.0)),
    "activity": lambda layer, x: layer.input_quant.active.fill_(False),
    "learned step": lambda layer, x: layer.input_quant.step.mul_(2),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_what_was_changed_before_the_backward_is_refused(changed: str) -> None:
    layer = recompute_in_backward(host("conv", range="learned" if changed == "learned step" else "measured"))
    x = torch.randn(2, 4, 5, 7).requires_grad_() * 1
    y = layer(x)
    with torch.no_grad():
        CHANGES[changed](layer, x)
    with pytest.raises(TrainingError) as error:
        y.sum().backward()
    assert str(error.value) == (
        "A PrunedQuantConv2d was to compute its input and weight again in a backward pass (recompute), and the input, "
        "the weight, a mask or a quantizer has been changed since the forward. Let the backward come first, or keep "
        "what was computed: recompute = false, recompute_in_backward(net, False)."
    )


def test_a_weight_without_slots_is_looked_after_too() -> None:
    layer = recompute_in_backward(PrunedConv2d(4, 6, 3))
    layer.input_mask.keep[1] = False
    y = layer(torch.randn(2, 4, 5, 7, requires_grad=True))
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(TrainingError, match="A PrunedConv2d was to compute"):
        y.sum().backward()


def test_a_commit_between_forward_and_backward_is_noticed() -> None:
    layer = recompute_in_backward(host("conv"))
    loss = layer(torch.randn(2, 4, 5, 7)).sum()
    layer.weight_quant.commit()
    with pytest.raises(TrainingError, match="has been changed since the forward"):
        loss.backward()


# ---- where layers keep what they always do


def test_compressors_with_hooks_or_of_other_classes_are_kept() -> None:
    layer = recompute_in_backward(host("conv"))
    layer.input_mask.register_forward_hook(lambda *_: None)
    kept, found = held(layer, torch.randn(2, 4, 5, 7).requires_grad_())
    assert [each() is None for each in found] == [False, True]
    kept.sum().backward()


def test_weights_that_are_computed_are_kept() -> None:
    layer = nn.utils.parametrizations.spectral_norm(QuantConv2d(4, 6, 3))
    layer.weight_quant.calibrate(layer.weight.detach()).told_active = True
    other, x = recompute_in_backward(copy.deepcopy(layer)), torch.randn(2, 4, 5, 7)
    assert_same(results(other, x), results(layer, x))


def test_hooks_of_somebody_else_keep_their_tensors() -> None:
    layer = host("conv")
    x, other = torch.randn(2, 4, 5, 7).requires_grad_(), recompute_in_backward(copy.deepcopy(layer))
    expected = torch.autograd.grad(layer(x).square().sum(), x)
    assert_same(torch.autograd.grad(checkpoint(other, x, use_reentrant=False).square().sum(), x), expected)
    with torch.autograd.graph.save_on_cpu():
        assert_same(torch.autograd.grad(other(x).square().sum(), x), expected)
    with torch.autograd.graph.disable_saved_tensors_hooks("none are wanted"):
        assert_same(torch.autograd.grad(other(x).square().sum(), x), expected)


def test_torch_func_and_compiled_code_are_left_alone() -> None:
    layer, x = host("conv"), torch.randn(2, 4, 5, 7)
    other, parameters = recompute_in_backward(copy.deepcopy(layer)), dict(layer.named_parameters())

    def loss(values: Any, net: nn.Module) -> Tensor:
        return torch.func.functional_call(net, values, x).square().sum()

    expected = torch.func.grad(loss)(parameters, layer)
    assert_same([*torch.func.grad(loss)(parameters, other).values()], [*expected.values()])
    torch.compile(other, backend="eager", fullgraph=True)(x).square().sum().backward()
    assert_same([each.grad for each in other.parameters()], [*expected.values()])


def test_every_host_of_a_network_says_whether_it_recomputes() -> None:
    net = compressed("mobilenet_v2", "output")
    hosts = [module for module in net.modules() if hasattr(module, "recompute")]
    assert hosts
    assert not any(each.recompute for each in hosts)
    assert recompute_in_backward(net) is net
    assert all(each.recompute for each in hosts)
    assert all(each.recompute for each in copy.deepcopy(net).modules() if hasattr(each, "recompute"))
    assert not any(each.recompute for each in recompute_in_backward(net, False).modules() if each in hosts)
