"""Calls that have no way of their own into a file: torch's exporter writes them."""

import re
from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

import qprune
from qprune.errors import ExportError
from qprune.exporting import OnnxModel
from qprune.exporting.by_torch import _Call
from qprune.exporting.writing import write_network

pytest.importorskip("onnxruntime")
Pair = namedtuple("Pair", "logits places")


class Calling(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.conv, self.call = nn.Conv2d(4, 4, 1), call
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))

    def forward(self, x: Tensor) -> Any:
        return self.call(self, self.conv(x), x)


CALLS = {
    "one function of numbers": lambda net, y, x: torch.acosh(1 + y.square()) + F.softplus(y, beta=2) + F.elu(y, 0.5),
    "channels by number": lambda net, y, x: y[:, net.order].roll((1, 2), (2, 3)),
    "truth values": lambda net, y, x: torch.where((y > 0) & (x > 0), y, x.masked_fill(x < 0, 0.5)),
    "other dtypes": lambda net, y, x: (y.double() * 2).float() + torch.ones(1, dtype=torch.int32),
    "statistics": lambda net, y, x: (y - y.mean(1, keepdim=True)) / y.std(1, keepdim=True),
    "windows and back": lambda net, y, x: F.fold(F.unfold(y, 2, stride=2), y.shape[2:], 2, stride=2),
    "a side length": lambda net, y, x: y + torch.arange(y.shape[-1]) / y.shape[-1],
    "places of maxima": lambda net, y, x: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2),
    "resizing": lambda net, y, x: F.interpolate(y, scale_factor=0.5, mode="bilinear", antialias=True),
    "attention": lambda net, y, x: F.scaled_dot_product_attention(y, x, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_torch_can_write_is_written(name, tmp_path):
    x = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    certificate = qprune.export(Calling(CALLS[name]).eval(), tmp_path / "net.onnx", x)
    assert max(each.largest for each in certificate.outputs) < 1e-4


def test_results_keep_their_names_and_kinds(tmp_path):
    x = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    net = Calling(lambda net, y, x: {"out": Pair(y, y.argmax(1)), "large": [y > 0.5, y.mean(1)]}).eval()
    certificate = qprune.export(net, tmp_path / "net.onnx", x)
    assert [each.name for each in certificate.outputs] == ["out.logits", "out.places", "large.0", "large.1"]
    logits, places, large, _ = OnnxModel(tmp_path / "net.onnx")(x)
    assert torch.equal(places, logits.argmax(1))
    assert torch.equal(large, logits > 0.5)


def test_a_call_that_fixes_sizes_is_written_for_these_alone(tmp_path):
    x = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten()).eval()
    certificate = qprune.export(net, tmp_path / "net.onnx", x, dynamic_size=False)
    assert certificate.outputs[0].largest < 1e-4


def test_quantizers_stay_around_what_torch_writes(tmp_path):
    x = torch.randn(8, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Softplus(beta=2), nn.Conv2d(6, 5, 3), nn.ELU(0.5), nn.Conv2d(5, 3, 1))
    rules = [{"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 8, "per": "channel", "start": 0}]
    small = qprune.swap(net.eval(), x, quantize=rules, complete=True)
    qprune.calibrate(small, [x])
    certificate = qprune.export(small, tmp_path / "net.onnx", x)
    assert not certificate.real_layers
    assert certificate.outputs[0].within_one > 0.99


def test_without_torchs_exporter_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    words = re.escape('torch\'s own exporter, which may know it, needs the packages of the extra "onnx": pip install')
    with pytest.raises(ExportError, match=words):
        write_network(Calling(lambda net, y, x: torch.sinh(y)), torch.zeros(1, 4, 8, 10))


def test_constants_of_other_types_are_other_calls():
    ones = {"steps": (1, True), "numbers": (1, 1.0), "signs": (0.0, -0.0)}
    for one, other in ones.values():
        calls = [_Call(torch.add, (0, None), (None, each), tree_flatten((0, 0))[1]) for each in (one, other, one)]
        assert calls[0] == calls[2]
        assert calls[0] != calls[1]


class Shown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.digamma(x)


def test_what_torch_does_not_know_either_is_said():
    words = r"0: digamma\(tensor\) is .*: torch's own exporter does not know it either, at `return torch.digamma"
    with pytest.raises(ExportError, match=words):
        write_network(nn.Sequential(Shown()), torch.zeros(1, 4, 8, 10))


def test_pooling_to_sizes_that_do_not_divide_is_written_for_the_sizes_of_the_example(tmp_path):
    net, x = Calling(lambda net, y, x: F.adaptive_avg_pool2d(y, (5, 7))).eval(), torch.randn(1, 4, 8, 10)
    with pytest.raises(ExportError, match=r"images of twice the size, .*Export it with dynamic_size=False"):
        qprune.export(net, tmp_path / "net.onnx", x)
    qprune.export(net, tmp_path / "net.onnx", x, dynamic_size=False)
    torch.testing.assert_close(OnnxModel(tmp_path / "net.onnx")(x), net(x))
