from pathlib import Path

import onnx
import torch
from small_nets import calibrated
from torch import nn

import qprune
from qprune.exporting import OnnxModel, file_model, runnable, write_network
from qprune.layers import QuantConv2d


def test_qonnx_file_is_opened_as_any_onnx_file(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 7, 5)
    qprune.export(calibrated(nn.Sequential(QuantConv2d(3, 4, 3)), x), tmp_path / "q.onnx", x, dialect="qonnx")
    model = OnnxModel(tmp_path / "q.onnx")
    assert model.name == str(tmp_path / "q.onnx")
    assert torch.equal(model(x), file_model(tmp_path / "q.onnx")(x))


def test_model_is_explained_once_and_only_if_it_has_such_nodes(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 7, 5)
    qprune.export(calibrated(nn.Sequential(QuantConv2d(3, 4, 3)), x), tmp_path / "q.onnx", x, dialect="qonnx")
    model = onnx.load(tmp_path / "q.onnx")
    explained = runnable(model)
    assert (len(model.functions), len(explained.functions)) == (0, 1)
    assert runnable(explained) is explained
    other = write_network(nn.Sequential(nn.Conv2d(3, 4, 3)), x).model
    assert runnable(other) is other
