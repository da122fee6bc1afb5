"""Convolutions of one and three dimensions, linear layers on tokens, and padding of any dimension, in integers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qprune

pytest.importorskip("onnxruntime")
SHAPES = {"Conv1d": (4, 6, 20), "Conv2d": (4, 6, 9, 11), "Conv3d": (4, 6, 9, 8, 7)}
OPTIONS = {
    "plain": {"padding": 1},
    "strided and grouped": {"stride": 2, "groups": 2},
    "circular": {"padding": "same", "dilation": 2, "padding_mode": "circular"},
}


def exported(net, x, path, **options):
    rule = {"sites": [{"types": ["Linear", *SHAPES], "at": "weight"}], "bits": 8, "per": "channel", "start": 0}
    present = {type(module).__name__ for module in net.modules()} & {"Linear", *SHAPES}
    rule["sites"][0]["types"] = sorted(present)
    small = qprune.swap(net.eval(), x, quantize=[rule], complete=True, **options)
    qprune.calibrate(small, [x])
    return qprune.export(small, path / "net.onnx", x)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_convolutions_compute_with_integers(kind, options, tmp_path):
    torch.manual_seed(0)
    conv, x = getattr(nn, kind), torch.randn(SHAPES[kind])
    net = nn.Sequential(conv(6, 8, 3, **options), nn.ReLU(), conv(8, 5, 3), nn.ReLU(), conv(5, 3, 1, bias=False))
    certificate = exported(net, x, tmp_path)
    assert not certificate.real_layers
    assert certificate.operators.integer["QLinearConv"] == 2
    assert certificate.outputs[0].within_one > 0.99


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (4, 3, 5, 6)])
def test_linear_layers_compute_with_integers_whatever_they_are_given(shape, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))
    certificate = exported(net, torch.randn(shape), tmp_path, numerics="exact")
    assert not certificate.real_layers
    assert certificate.operators.integer["QGemm"] == 2
    assert certificate.exact


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(9, 5, 1)

    def forward(self, x):
        return self.second(F.pad(self.first(x).relu(), (1, 0, 2, 1, 2, 3)))  # more channels, as for option A


def test_zeros_are_put_before_and_behind_channels_in_integers(tmp_path):
    torch.manual_seed(0)
    certificate = exported(Padded(), torch.randn(2, 3, 7, 9), tmp_path)
    assert not certificate.real_layers
    assert certificate.outputs[0].within_one == 1


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(6), nn.GELU(), nn.LayerNorm(6)], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("bits", [4, 8])
def test_quantizers_and_masks_behind_any_layer_are_written(layer, bits, tmp_path):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 6), layer, nn.Linear(6, 3)).eval(), torch.randn(9, 5)
    site = {"sites": [{"paths": ["1"], "at": "output"}]}
    rules = {"sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 1}} | site
    for per in ("tensor", "channel"):
        quantize = [site | {"bits": bits, "per": per, "start": 0}]
        small = qprune.swap(net, x, prune=[rules], quantize=quantize)
        next(module for module in small.modules() if hasattr(module, "keep")).keep[::2] = False
        qprune.calibrate(small, [x])
        certificate = qprune.export(small, tmp_path / f"{per}.onnx", x)
        assert certificate.outputs[0].within_one == 1
