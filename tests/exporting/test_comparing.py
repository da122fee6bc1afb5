"""A file that computes something else than its network is an error, where rounding cannot explain it."""

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from small_nets import calibrated
from torch import Tensor, nn

import qprune
from qprune.errors import ExportError
from qprune.exporting import onnx_format, write_network
from qprune.layers import QuantConv2d


class Net(nn.Module):
    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run, self.a, self.b, self.c = run, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def chain(net: Any, x: Tensor) -> Tensor:
    return net.c(net.b(net.a(x).relu()).relu())


def written_as(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    """Let every file be one of a network that was spoiled."""

    def write(net: nn.Module, *inputs: Any, **options: Any) -> Any:
        other = copy.deepcopy(net)
        with torch.no_grad():
            spoil(other)
        return write_network(other, *inputs, **options)

    monkeypatch.setattr(onnx_format, "write_network", write)


def spoil_b(net: Any) -> None:
    net.b.bias[2] += 0.05


def test_file_of_another_float_network_is_an_error_and_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_as(monkeypatch, spoil_b)
    (tmp_path / "model.onnx").write_bytes(b"the one before")
    with pytest.raises(ExportError, match=r"^The file differs from Net by 0\.\d+ where the largest number is \d"):
        qprune.export(Net(chain), tmp_path / "model.onnx", torch.randn(2, 3, 5, 7))
    assert (tmp_path / "model.onnx").read_bytes() == b"the one before"
    assert len(list(tmp_path.iterdir())) == 1


def test_network_of_which_the_quantizers_hide_the_difference_is_compared_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net: Any = Net(chain)
    net.b = QuantConv2d(4, 4, 1, weight_bits=8, act_bits=8)
    net, x = calibrated(net, torch.randn(2, 3, 5, 7)), torch.randn(2, 3, 5, 7)
    qprune.export(net, tmp_path / "model.onnx", x)
    written_as(monkeypatch, spoil_b)
    with pytest.raises(ExportError, match="The file differs from Net by"):
        qprune.export(net, tmp_path / "model.onnx", x)


def test_where_a_difference_begins_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qprune.exporting import layers

    def wrong(low: Any, path: str, layer: Any, shape: Any, value: Any) -> Any:
        return low.rectify(value, 0.0, 0.01)

    monkeypatch.setattr(layers, "LAYERS", {**layers.LAYERS, (nn.GroupNorm,): wrong})
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())
    with pytest.raises(
        ExportError, match=r"and rounding explains \S+; 1 is the first layer whose result differs\. Its"
    ):
        qprune.export(net, tmp_path / "model.onnx", torch.randn(2, 3, 5, 7))


def test_network_that_overwrites_its_input_is_compared_on_the_same_numbers(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 5, 7)
    before = x.clone()
    with torch.no_grad():
        certificate = qprune.export(Net(lambda net, x: net.a(x.mul_(0.5))), tmp_path / "model.onnx", x)
    assert certificate.outputs[0].largest < 1e-5
    assert torch.equal(x, before)


def test_network_that_makes_much_of_rounding_is_no_error(tmp_path: Path) -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        return (y - y.mean((2, 3), keepdim=True)) * 1e5

    one_colour = torch.full((1, 3, 5, 7), 0.3)  # of which nothing but rounding is left
    qprune.export(Net(run), tmp_path / "model.onnx", one_colour)


def test_network_that_takes_one_number_of_images_is_told(tmp_path: Path) -> None:
    net = Net(lambda net, x: net.a(x).view(1, 4, 35))
    with pytest.raises(
        ExportError, match=r"Net .* takes no other number of images than the example has, and must take"
    ):
        qprune.export(net, tmp_path / "model.onnx", torch.randn(1, 3, 5, 7))


def test_network_that_decides_by_the_size_of_images_is_told(tmp_path: Path) -> None:
    net = Net(lambda net, x: net.a(x).relu() if x.shape[2] > 8 else net.a(x))
    with pytest.raises(ExportError, match=r"Net does something else with images of twice the size.*dynamic_size=False"):
        qprune.export(net, tmp_path / "model.onnx", torch.randn(1, 3, 5, 7))
    assert not (tmp_path / "model.onnx").exists()
    qprune.export(net, tmp_path / "model.onnx", torch.randn(1, 3, 5, 7), dynamic_size=False)


def test_outputs_of_other_shapes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def widen(net: Any) -> None:
        net.c = nn.Conv2d(4, 6, 1)

    written_as(monkeypatch, widen)
    with pytest.raises(
        ExportError, match=r"Net gives outputs of shape \(2, 5, 5, 7\), and the file .* \(2, 6, 5, 7\): its"
    ):
        qprune.export(Net(chain), tmp_path / "model.onnx", torch.randn(2, 3, 5, 7))


class Table(nn.Module):
    def forward(self, index: Tensor) -> dict[str, Tensor]:
        return {"value": index * 2.5, "place": index}


def test_programs_may_read_whole_numbers_and_give_tables(tmp_path: Path) -> None:
    certificate = qprune.export(Table(), tmp_path / "model.pt2", torch.tensor([[3, 8, 5]]))
    assert certificate.exact
    assert len(certificate.outputs) == 2


def test_infinite_outputs_are_equal_if_they_are_the_same(tmp_path: Path) -> None:
    certificate = qprune.export(Net(lambda net, x: (x * 99).exp()), tmp_path / "model.onnx", torch.randn(2, 3, 5, 7))
    assert certificate.outputs[0].scale == torch.inf
    assert certificate.outputs[0].within_one == 1


@pytest.mark.parametrize("name", ["model.tflite", "model", "model.onnx.txt"])
def test_name_that_says_something_else_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r'is to be an ONNX file \(its name ends in "\.onnx"\) or a program of torch'):
        qprune.export(Net(chain), tmp_path / name, torch.zeros(1, 3, 5, 7))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("example", "words"), [("images", "a str"), (torch.zeros(()), "a tensor of one number")])
def test_example_of_another_kind_is_refused(example: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=rf"example must be a tensor of images, \(N, \.\.\.\), .*; received {words}\."
    ):
        qprune.export(Net(chain), tmp_path / "model.onnx", example)


def test_written_file_is_the_one_that_was_compared(tmp_path: Path) -> None:
    certificate = qprune.export(Net(chain), tmp_path / "model.onnx", torch.randn(1, 3, 5, 7))
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    assert certificate.bytes == (tmp_path / "model.onnx").stat().st_size


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(6, 3), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"small": self.small(x), "large": self.large(x)}


def test_classes_are_those_of_the_first_output_that_has_some(tmp_path) -> None:
    certificate = qprune.export(TwoHeads().eval(), tmp_path / "net.onnx", torch.randn(5, 6))
    assert [each.name for each in certificate.outputs] == ["small", "large"]
    assert certificate.predictions == 1.0
