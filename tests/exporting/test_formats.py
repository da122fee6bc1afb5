"""What every format of exported files promises; and one of somebody's own, which is a class and a line in `FORMATS`."""

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import calibrated
from torch import Tensor, nn

import qprune
from qprune.errors import ExportError
from qprune.exporting import DIALECTS, FORMATS, Format, Made, file_model, onnx_format, qonnx, torch_program
from qprune.exporting.certificate import Environment
from qprune.exporting.formats import format_of, format_to_write
from qprune.exporting.running import Operators
from qprune.layers import QuantConv2d

NEEDS_TRUST = {"onnx": False, "qonnx": False, "program": True}  # a new format is a line here
every_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 7, 5)


def dense() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 1)).eval()


def exported(name: str, net: nn.Module, x: Any, folder: Path, **options: Any) -> Path:
    path = folder / f"model{FORMATS[name].suffix}"
    qprune.export(net, path, x, **({"dialect": name} if name in DIALECTS else {}), **options)
    return path


@every_format
def test_file_gives_the_same_outputs(name: str, x: Tensor, tmp_path: Path) -> None:
    net = dense()
    model = file_model(exported(name, net, x, tmp_path), trusted=True)
    assert (model.about, model.outputs, model.stride) == ({}, ("output",), 1)
    torch.testing.assert_close(model(x), net(x), rtol=1e-4, atol=1e-5)


@every_format
def test_content_is_what_was_run(name: str, x: Tensor, tmp_path: Path) -> None:
    net = calibrated(nn.Sequential(QuantConv2d(3, 4, 3), nn.ReLU(), QuantConv2d(4, 6, 1)), x)
    made = FORMATS[name].write(net, (x,), storage="int8", dynamic_size=None, about={"classes": ["a", "b"]})
    assert made.operators().real
    (tmp_path / "model").write_bytes(made.content)
    model = FORMATS[name].open(tmp_path / "model", trusted=True)
    assert model.about == made.model.about == {"classes": ["a", "b"]}
    assert torch.equal(model(x), made.model(x))


@every_format
@pytest.mark.parametrize("called", ["model", "model.onnx", "model.pt"])
def test_file_that_runs_code_is_opened_only_if_it_is_trusted_whatever_its_name(
    name: str, called: str, x: Tensor, tmp_path: Path
) -> None:
    path = exported(name, dense(), x, tmp_path).rename(tmp_path / called)
    if NEEDS_TRUST[name]:
        for opened in (file_model, FORMATS[name].open):
            with pytest.raises(ExportError, match="runs whatever code is in the file"):
                opened(path)
    else:
        assert file_model(path)(x).shape == (2, 6, 5, 3)


@every_format
def test_file_is_cut_off_or_something_else(name: str, x: Tensor, tmp_path: Path) -> None:
    path = exported(name, dense(), x, tmp_path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"something else"):
        path.write_bytes(content)
        with pytest.raises(ExportError, match=f"^{path} cannot be run: it is "):
            file_model(path, trusted=True)


@every_format
def test_storage_is_refused_where_no_integers_are(name: str, x: Tensor, tmp_path: Path) -> None:
    if FORMATS[name].stores_integers:
        assert exported(name, dense(), x, tmp_path, storage="int4").exists()
        return
    with pytest.raises(ExportError, match=r'^storage = "int4" is for ONNX files of integers: leave it out here\.$'):
        exported(name, dense(), x, tmp_path, storage="int4")
    assert not list(tmp_path.iterdir())


WRITERS: dict[str, tuple[Any, str]] = {
    "onnx": (onnx_format, "write_network"),
    "qonnx": (qonnx, "write_qonnx"),
    "program": (torch_program, "_followed"),
}


@every_format
def test_quantizers_hide_no_wrong_file(name: str, x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = getattr(*WRITERS[name])

    def spoiled(net: Any, *arguments: Any, **options: Any) -> Any:
        other = copy.deepcopy(net)
        other[2].bias.data[3] += 0.05
        return write(other, *arguments, **options)

    net = calibrated(nn.Sequential(QuantConv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 1)), x)
    monkeypatch.setattr(*WRITERS[name], spoiled)
    with pytest.raises(ExportError, match=r"^The (file differs|program computes something else)"):
        exported(name, net, x, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "dialect", "name"),
    [("a/model.onnx", "onnx", "onnx"), ("model.onnx", "qonnx", "qonnx"), ("model.pt2", "onnx", "program")],
)
def test_ending_and_dialect_choose_what_is_written(path: str, dialect: str, name: str) -> None:
    assert format_to_write(path, dialect) is FORMATS[name]


@pytest.mark.parametrize(
    ("path", "dialect", "sentence"),
    [
        ("a.txt", "qonnx", 'a.txt is to be an ONNX file (its name ends in ".onnx") or a program of torch.export '
                           '(".pt2"); received a name that ends in ".txt".'),
        ("a.pt2", "qonnx", 'dialect "qonnx" is one of ONNX files; a .pt2 file has none.'),
        ("a.pt2", "program", "dialect must be \"onnx\" or \"qonnx\"; received 'program'."),
        ("a.onnx", "finn", "dialect must be \"onnx\" or \"qonnx\"; received 'finn'."),
    ],
)  # fmt: skip
def test_what_no_format_writes_is_refused(path: str, dialect: str, sentence: str) -> None:
    with pytest.raises(ExportError) as error:
        format_to_write(path, dialect)
    assert str(error.value) == sentence


def test_content_decides_before_the_name(x: Tensor, tmp_path: Path) -> None:
    program = exported("program", dense(), x, tmp_path)
    for name in ("a.onnx", "a", "a.pt"):
        assert format_of(program.rename(program := tmp_path / name)) is FORMATS["program"]
    (tmp_path / "b.pt2").write_bytes(b"nothing")
    assert format_of(tmp_path / "b.pt2") is FORMATS["program"]
    assert format_of("missing.onnx") is FORMATS["onnx"]
    assert format_of(tmp_path) is None
    assert format_of("missing.pt") is None


class Rows(nn.Module):
    stride, outputs = 1, ("output",)

    def __init__(self, file: Any) -> None:
        super().__init__()
        with np.load(file) as arrays:
            self.weight, self.bias = (torch.from_numpy(arrays[name]) for name in ("weight", "bias"))
        self.about: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Numpy(Format):
    suffix, title = ".npz", "arrays of numpy"
    factor = 1.0

    def write(self, net: Any, inputs: Any, *, storage: str, dynamic_size: Any, about: Mapping[str, Any]) -> Made:
        content = io.BytesIO()
        np.savez(content, weight=net.weight.detach().numpy() * self.factor, bias=net.bias.detach().numpy())
        place = Environment("numpy", "any", "none", False, torch.__version__)
        return Made(net, content.getvalue(), Rows(io.BytesIO(content.getvalue())), place, lambda: Operators({}, {}, {}))

    def open(self, path: Any, *, trusted: bool = False) -> Rows:
        return Rows(path)


def test_format_of_ones_own_is_one_class_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "numpy", Numpy())
    net, x = nn.Linear(5, 3), torch.randn(2, 5)
    certificate = qprune.export(net, tmp_path / "model.npz", x)
    assert certificate.exact
    assert certificate.environment.runtime == "numpy"
    assert torch.equal(file_model(tmp_path / "model.npz")(x), net(x))
    with pytest.raises(ExportError, match="does not say what it was trained for"):
        qprune.load(tmp_path / "model.npz")
    with pytest.raises(ExportError, match=r'or a program of torch\.export \("\.pt2"\) or arrays of numpy \("\.npz"\)'):
        qprune.export(net, tmp_path / "model.txt", x)
    with pytest.raises(ExportError, match=r'dialect "qonnx" is one of ONNX files; a \.npz file has none'):
        qprune.export(net, tmp_path / "model.npz", x, dialect="qonnx")
    monkeypatch.setattr(Numpy, "factor", 1.5)
    with pytest.raises(ExportError, match="The file differs from Linear by"):
        qprune.export(net, tmp_path / "wrong.npz", x)
    assert not (tmp_path / "wrong.npz").exists()
