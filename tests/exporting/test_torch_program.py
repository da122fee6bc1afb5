from pathlib import Path

import pytest
import torch
from small_nets import calibrated
from torch import Tensor, nn

import qprune
from qprune import zoo
from qprune.errors import ExportError
from qprune.exporting import TorchProgram, torch_program, write_program
from qprune.layers import PrunedConv2d, QuantConv2d
from qprune.shrinking import shrink_with_facts


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 9, 7)


def chain() -> nn.Module:
    layers = [QuantConv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), QuantConv2d(6, 5, 3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_file_computes_the_bits_of_the_folded_network_for_any_number_of_images(x: Tensor, tmp_path: Path) -> None:
    net = calibrated(chain(), x)
    qprune.export(net, tmp_path / "model.pt2", x[:1])
    program = torch.export.load(tmp_path / "model.pt2").module()
    small = shrink_with_facts(net, x, fold=True).net
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    for count in (1, 2, 4):
        assert torch.equal(program(x[:count]), small(x[:count]))


def test_certificate_compares_with_the_network_that_was_trained(x: Tensor, tmp_path: Path) -> None:
    certificate = qprune.export(calibrated(chain(), x), tmp_path / "model.pt2", x)
    assert certificate.inputs == {"example": 4, "random": 8, "extreme": 4}
    assert certificate.outputs[0].values == (4 + 8 + 4) * 5
    assert certificate.outputs[0].within_one > 0.9
    assert certificate.operators.real["conv2d"] == 2
    assert certificate.packed_bytes is not None
    assert certificate.bytes == (tmp_path / "model.pt2").stat().st_size
    assert "torch.export" in str(certificate)


def test_without_normalizations_the_certificate_is_exact(x: Tensor, tmp_path: Path) -> None:
    net = calibrated(nn.Sequential(QuantConv2d(3, 6, 3), nn.ReLU(), QuantConv2d(6, 5, 3)), x)
    assert qprune.export(net, tmp_path / "model.pt2", x).exact


def test_dropped_channels_are_gone(x: Tensor, tmp_path: Path) -> None:
    net = nn.Sequential(PrunedConv2d(3, 6, 3, at="output"), nn.ReLU(), nn.Conv2d(6, 5, 1)).eval()
    net[0].output_mask.keep[[1, 4]] = False
    write_program(net, tmp_path / "model.pt2", x)
    state = torch.export.load(tmp_path / "model.pt2").state_dict
    assert state["0.weight"].shape == (4, 3, 3, 3)


@pytest.mark.parametrize("name", ["mobilenetv2", "unet"])
def test_networks_of_the_zoo(name: str, tmp_path: Path) -> None:
    net = zoo.create(name, classes=7, width=0.125).eval()
    certificate = qprune.export(net, tmp_path / "model.pt2", torch.randn(1, 3, 32, 64))
    assert certificate.outputs[0].largest < 1e-4 * max(certificate.outputs[0].scale, 1)


def test_images_of_another_size_if_asked(x: Tensor, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()).eval()
    qprune.export(net, tmp_path / "model.pt2", x, dynamic_size=True)
    y = torch.randn(2, 3, 5, 12)
    assert torch.equal(TorchProgram(tmp_path / "model.pt2", trusted=True)(y), net(y))


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, x * y


def test_several_inputs_and_outputs(x: Tensor, tmp_path: Path) -> None:
    certificate = qprune.export(TwoOutputs(), tmp_path / "model.pt2", (x, x + 1))
    assert [each.name for each in certificate.outputs] == ["output", "output_1"]
    assert certificate.exact


def test_what_qprune_writes_about_a_network_is_read_back(x: Tensor, tmp_path: Path) -> None:
    write_program(nn.Sequential(nn.ReLU()), tmp_path / "model.pt2", x, about={"classes": ["a", "b"]})
    assert TorchProgram(tmp_path / "model.pt2", trusted=True).about == {"classes": ["a", "b"]}


class DecidesByValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_forward_that_decides_by_values_is_refused(x: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="DecidesByValues cannot be written as a program"):
        qprune.export(DecidesByValues(), tmp_path / "model.pt2", x)
    assert not (tmp_path / "model.pt2").exists()


def test_program_of_another_network_is_refused(x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch_program._followed
    other = nn.Sequential(nn.Conv2d(3, 4, 1))
    monkeypatch.setattr(torch_program, "_followed", lambda net, *arguments: original(other, *arguments))
    with pytest.raises(ExportError, match="computes something else than Sequential"):
        qprune.export(nn.Sequential(nn.Conv2d(3, 4, 1)), tmp_path / "model.pt2", x)
    assert not (tmp_path / "model.pt2").exists()


def test_options_of_onnx_files_are_refused(x: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match='storage = "int4" is for ONNX files of integers'):
        qprune.export(nn.Sequential(nn.ReLU()), tmp_path / "model.pt2", x, storage="int4")


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="cannot be run"):
        TorchProgram(tmp_path / "model.pt2", trusted=True)
