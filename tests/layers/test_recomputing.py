"""Backward passes that compute masked and rounded operands again: the same bits from less memory."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from on_gpu import as_on_gpu
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import qprune
from qprune import zoo
from qprune.errors import TrainingError
from qprune.layers import (
    CompressedConv2d,
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


def compressed(name: str, side: str, per: str = "channel", **options: Any) -> nn.Module:
    torch.manual_seed(1)
    net = NETS[name]()
    there = {type(module).__name__ for module in net.modules()}
    weighted = [kind for kind in WEIGHTED if kind in there]
    acts: dict[str, Any] = {"types": weighted, "at": "input", "skip": [0]}
    if side == "output":
        acts = {"types": [kind for kind in ("ReLU", "ReLU6", "BatchNorm2d") if kind in there], "at": "output"}
    prune = {"sites": [acts], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}}
    weights = {"sites": [{"types": weighted, "at": "weight"}], "bits": 4, "per": per, "start": 2} | options
    inputs = {"sites": [acts], "bits": 4, "start": 2} | options
    return qprune.swap(net, torch.zeros(2, 3, 32, 32), prune=[prune], quantize=[weights, inputs])


def trained(net: nn.Module, *, layout: Any = torch.contiguous_format, autocast: bool = False, parts: int = 1) -> Any:
    """Losses, gradients, weights and buffers after steps before masks and quantizers start, and after."""
    torch.manual_seed(2)  # of dropout
    net = net.to(memory_format=layout).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
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
        assert torch.equal(a, b)


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "channels last": {"layout": torch.channels_last},
    "bfloat16": {"autocast": True, "layout": torch.channels_last},
    "in parts": {"parts": 2},
}


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("way", WAYS)
def test_networks_train_to_the_same_bits(name: str, side: str, way: str) -> None:
    net = compressed(name, side)
    expected = trained(copy.deepcopy(net), **WAYS[way])
    assert_same(trained(recompute_in_backward(net), **WAYS[way]), expected)
