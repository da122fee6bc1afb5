import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import calibrated, made_exact
from torch import Tensor, nn

import qprune
from qprune.errors import ExportError
from qprune.exporting import Certificate, OnnxModel, onnx_format, write_network
from qprune.exporting.probe import saturates
from qprune.layers import QuantConv2d


def chain(bits: int) -> nn.Module:
    layers = [QuantConv2d(3, 6, 3, padding=1, weight_bits=bits, act_bits=bits), nn.ReLU(),
              QuantConv2d(6, 5, 3, weight_bits=bits, act_bits=bits)]  # fmt: skip
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 9, 7)


def certified(net: nn.Module, x: Tensor, path: Path) -> Certificate:
    return qprune.export(net, path / "model.onnx", x)


def test_equal_networks_are_certified_exact(x: Tensor, tmp_path: Path) -> None:
    certificate = certified(made_exact(calibrated(chain(4), x))[:3], x, tmp_path)  # type: ignore[index]
    assert certificate.exact
    assert [each.name for each in certificate.quantizers] == ["0.input", "2.input"]
    assert "100 %" in str(certificate)


def test_other_integers_are_not_certified(x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(net: Any, *inputs: Any, **options: Any) -> Any:
        other = copy.deepcopy(net)
        other[0].weight_quant.scale *= 1.1
        return write_network(other, *inputs, **options)

    monkeypatch.setattr(onnx_format, "write_network", write)
    certificate = certified(made_exact(calibrated(chain(4), x))[:3], x, tmp_path)  # type: ignore[index]
    assert not certificate.exact
    assert certificate.outputs[0].equal < 1


def test_differences_are_counted(x: Tensor, tmp_path: Path) -> None:
    certificate = certified(calibrated(chain(4), x), x, tmp_path)
    (output,) = certificate.outputs
    assert output.values == (4 + 8 + 4) * 5
    assert 0 <= output.equal <= output.within_one <= 1
    assert certificate.predictions is not None
    assert certificate.quantizers[0].equal == 1  # the first reads the same numbers


def test_operators_are_those_that_ran(x: Tensor, tmp_path: Path) -> None:
    certificate = certified(calibrated(chain(8), x), x, tmp_path)
    assert certificate.operators.integer["QLinearConv"] == 1
    assert certificate.operators.integer["ConvInteger"] == 1
    assert "Conv" not in certificate.operators.real
    assert certificate.real_layers == {}


def test_a_dense_network_is_certified_too(x: Tensor, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    certificate = certified(net, x, tmp_path)
    assert certificate.outputs[0].largest < 1e-5
    assert certificate.real_layers == {"0": "its weights have no quantizer"}
    assert "no integers were compared" in str(certificate)


def test_segmentations_are_compared_by_iou(x: Tensor, tmp_path: Path) -> None:
    certificate = certified(nn.Sequential(nn.Conv2d(3, 5, 1)), x, tmp_path)
    assert certificate.predictions == 1
    assert certificate.iou == 1


def test_certificate_is_plain_data(x: Tensor, tmp_path: Path) -> None:
    certificate = certified(calibrated(chain(8), x), x, tmp_path)
    content = json.loads(certificate.to_json())
    assert content["outputs"][0]["name"] == "output"
    assert content["environment"]["saturates"] is saturates()


def test_network_without_example_is_refused() -> None:
    with pytest.raises(ExportError, match="pass example, one of them"):
        qprune.export(nn.Sequential(nn.ReLU()), "model.onnx")


def test_folder_that_is_missing_is_named(x: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written"):
        qprune.export(nn.Sequential(nn.ReLU()), tmp_path / "nowhere" / "model.onnx", x)


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="cannot be run"):
        OnnxModel(tmp_path / "model.onnx")


def test_file_without_a_run_cannot_be_scored(x: Tensor, tmp_path: Path) -> None:
    qprune.export(nn.Sequential(nn.ReLU()), tmp_path / "model.onnx", x)
    with pytest.raises(ExportError, match="does not say what it was trained for"):
        qprune.evaluate(tmp_path / "model.onnx")


def test_modes_are_restored(x: Tensor, tmp_path: Path) -> None:
    net = calibrated(chain(8), x).train()
    net[0].eval()  # type: ignore[index,operator]
    certified(net, x, tmp_path)
    assert net.training
    assert not net[0].training  # type: ignore[index,union-attr]
    assert net[2].training  # type: ignore[index,union-attr]
