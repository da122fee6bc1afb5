"""Networks of torchvision leave as files that compute the same: in real numbers, and with integers to the bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qprune
from qprune.exporting import OnnxModel

models = pytest.importorskip("torchvision.models")

SHAPE = (3, 32, 32)
OPTIONS: dict[str, dict[str, Any]] = {"googlenet": {"aux_logits": False, "init_weights": False}}
NAMES = (
    "resnet18", "mobilenet_v2", "mobilenet_v3_small", "googlenet", "densenet121", "squeezenet1_1",
    "shufflenet_v2_x0_5", "regnet_y_400mf",
)  # fmt: skip


REAL = ("mobilenet_v3_small", "regnet_y_400mf")  # have functions between their layers that no integers compute


def quick(*names: str, of: Sequence[str] = NAMES) -> list[Any]:
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in of]


@torch.no_grad()
def lively(name: str) -> nn.Module:
    """A network whose normalizations have the statistics of its inputs, so that numbers keep their size."""
    torch.manual_seed(0)
    net: nn.Module = getattr(models, name)(weights=None, num_classes=11, **OPTIONS.get(name, {})).eval()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    net(torch.randn(16, *SHAPE))
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", quick("shufflenet_v2_x0_5", "mobilenet_v3_small"))
def test_network_computes_the_same_from_a_file(name: str, tmp_path: Path) -> None:
    net, images = lively(name), torch.randn(3, *SHAPE)
    qprune.export(net, tmp_path / "model.onnx", images[:1])
    expected = net(images)
    assert expected.abs().max() > 0.1
    difference = OnnxModel(tmp_path / "model.onnx")(images) - expected
    assert difference.abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", quick("squeezenet1_1", of=[name for name in NAMES if name not in REAL]))
def test_network_in_exact_numerics_computes_every_bit_from_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net, images = lively(name), torch.randn(4, *SHAPE)
    types = sorted({type(layer).__name__ for layer in net.modules()} & {"Conv2d", "Linear"})
    layers = {"sites": [{"types": types, "at": "weight"}], "bits": 8, "per": "channel", "start": 0}
    net = qprune.swap(net, images[:1], quantize=[layers], complete=True, numerics="exact")
    certificate = qprune.export(qprune.calibrate(net, [images]), tmp_path / "model.onnx", images)
    assert certificate.exact
    assert not certificate.real_layers
    assert len(certificate.quantizers) > 15
