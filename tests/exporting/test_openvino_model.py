"""The same file in OpenVINO: networks of exact numerics are equal to the bit there, too."""

import sys

import pytest
import torch
from torch import nn

import qprune
from qprune.errors import ExportError
from qprune.exporting import OpenVinoModel
from qprune.exporting.lowering import Lowering
from qprune.zoo import Add

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")


class Residual(nn.Module):
    """A sum behind a convolution, of what nobody reads again: a runtime may put it into the convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.first, self.act1 = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.second, self.add, self.act2 = nn.Conv2d(8, 8, 3, padding=1), Add(), nn.ReLU()
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        x = self.act(self.stem(x))
        return self.head(self.act2(self.add(self.second(self.act1(self.first(x))), x)))


def residual(bits, x, numerics="exact"):
    torch.manual_seed(bits)
    rules = [
        {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": bits, "per": "channel", "start": 0},
        {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": bits, "start": 0},
    ]
    net = qprune.swap(Residual().eval(), x, quantize=rules, complete=True, numerics=numerics)
    qprune.calibrate(net, [x])
    return net


@pytest.mark.parametrize("bits", [4, 8])
def test_a_network_of_exact_numerics_is_equal_to_the_bit(bits, tmp_path):
    x = torch.randn(16, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    certificate = qprune.export(residual(bits, x), tmp_path / "net.onnx", x, also=["openvino"])
    assert certificate.exact
    (found,) = certificate.elsewhere["openvino"].outputs
    assert (found.equal, found.largest) == (1.0, 0.0)
    assert "outputs 100 % equal" in str(certificate)
    assert certificate.to_dict()["elsewhere"]["openvino"]["runtime"].startswith("openvino 2")


def test_without_a_second_rounding_a_sum_would_not_be_equal_and_it_costs_nothing(tmp_path, monkeypatch):
    x = torch.randn(16, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    net = residual(8, x)
    twice = qprune.export(net, tmp_path / "twice.onnx", x)
    monkeypatch.setattr(Lowering, "summand", Lowering.real)
    once = qprune.export(net, tmp_path / "once.onnx", x, also=["openvino"])
    assert once.elsewhere["openvino"].outputs[0].equal < 1
    assert once.operators == twice.operators


def test_another_numerics_is_counted_and_no_error(tmp_path):
    x = torch.randn(4, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    certificate = qprune.export(residual(8, x, "default"), tmp_path / "net.onnx", x, also=["openvino"])
    assert certificate.elsewhere["openvino"].outputs[0].within_one > 0.9


def test_it_takes_images_of_any_number_and_size(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(beta=2), nn.Conv2d(4, 2, 1)).eval()
    qprune.export(net, tmp_path / "net.onnx", torch.randn(1, 3, 8, 9))
    model = OpenVinoModel(tmp_path / "net.onnx", threads=1)
    for shape in ((1, 3, 8, 9), (5, 3, 8, 9), (2, 3, 16, 12)):
        x = torch.randn(shape)
        torch.testing.assert_close(model(x), net(x), atol=1e-4, rtol=1e-4)


def test_what_it_cannot_run_is_noted(tmp_path, monkeypatch):
    import openvino

    class Refusing:
        def read_model(self, *_):
            raise RuntimeError("Check failed\n\nno such operator\n")

    monkeypatch.setattr(openvino, "Core", Refusing)
    certificate = qprune.export(nn.Conv2d(3, 4, 1), tmp_path / "net.onnx", torch.randn(1, 3, 5, 6), also=["openvino"])
    assert "OpenVINO cannot run the file: no such operator" in str(certificate)
    assert not certificate.elsewhere["openvino"].outputs


def test_other_runtimes_are_refused_by_name(tmp_path, monkeypatch):
    net, x = nn.Conv2d(3, 4, 1), torch.randn(1, 3, 5, 6)
    with pytest.raises(ExportError, match='also must be among openvino; received "tensorrt"'):
        qprune.export(net, tmp_path / "net.onnx", x, also=["tensorrt"])
    with pytest.raises(ExportError, match="openvino cannot run such files: export an ONNX file"):
        qprune.export(net, tmp_path / "net.pt2", x, also=["openvino"])
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match=r'needs the extra "openvino": pip install "qprune\[openvino\]"'):
        qprune.export(net, tmp_path / "net.onnx", x, also=["openvino"])
    assert not list(tmp_path.iterdir())
