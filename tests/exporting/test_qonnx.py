from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from small_nets import calibrated, made_exact
from torch import Tensor, nn

import qprune
from qprune.errors import ExportError
from qprune.exporting import OnnxModel, runnable, write_qonnx
from qprune.exporting.qonnx import QonnxGraph
from qprune.layers import FakeQuant, QuantConv2d, QuantLinear
from qprune.zoo import Add


def chain(bits: int = 8) -> nn.Module:
    options: dict[str, Any] = {"weight_bits": bits, "act_bits": bits}
    layers = [QuantConv2d(3, 6, 3, padding=1, **options), nn.ReLU(), QuantConv2d(6, 5, 3, per="tensor", **options)]
    return nn.Sequential(*layers, nn.Flatten(), QuantLinear(5 * 6 * 4, 4, **options))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = QuantConv2d(3, 4, 3, padding=1), QuantConv2d(4, 4, 3, padding=1, groups=2)
        self.add, self.last = Add(), QuantConv2d(4, 5, 1, weight_bits=4, act_bits=4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.last(F.max_pool2d(F.relu(self.add(self.second(x), x)), 2))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 8, 6)


def quants(model: Any) -> list[dict[str, Any]]:
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [
        {"name": node.output[0], "scale": constants[node.input[1]], "zero": constants[node.input[2]].tolist(),
         "bits": constants[node.input[3]].tolist()}
        | {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        for node in model.graph.node if node.op_type == "Quant"
    ]  # fmt: skip


def test_one_node_stands_behind_each_weight_and_activation(x: Tensor) -> None:
    model = write_qonnx(calibrated(chain(4), x), x).model
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Quant"] == 6
    assert not {"QuantizeLinear", "DequantizeLinear", "ConvInteger"} & set(kinds)
    assert {node.domain for node in model.graph.node if node.op_type == "Quant"} == {"qonnx.custom_op.general"}
    assert not model.functions
    by_name = {each["name"]: each for each in quants(model)}
    assert by_name["0.weight"]["scale"].shape == (6, 1, 1, 1)
    assert by_name["2.weight"]["scale"].shape == ()
    assert by_name["0.weight"] | {"scale": None} == {
        "name": "0.weight", "scale": None, "zero": 0, "bits": 4, "signed": 1, "narrow": 1, "rounding_mode": b"ROUND"
    }  # fmt: skip
    assert (by_name["2.input"]["signed"], by_name["2.input"]["narrow"], by_name["2.input"]["zero"]) == (0, 0, 0)


def test_weights_are_those_that_were_trained(x: Tensor) -> None:
    net: Any = calibrated(chain(4), x)
    model = write_qonnx(net, x).model
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    integers, scale = net[0].int_weight()
    assert (constants["0.weight.real"] == (integers * scale).numpy()).all()


@pytest.mark.parametrize(("signed", "narrow", "bits"), [(1, 1, 8), (1, 0, 8), (0, 0, 8), (0, 1, 4), (1, 1, 2)])
def test_what_quant_computes_saturates_where_its_integers_end(signed: int, narrow: int, bits: int) -> None:
    low = signed * (narrow - 2 ** (bits - 1))
    high = 2 ** (bits - signed) - 1 - (1 - signed) * narrow
    graph = QonnxGraph()
    graph.input("x", (7,), (None,))
    options: dict[str, Any] = {"bits": bits, "signed": bool(signed), "narrow": bool(narrow)}
    result = graph.quant("x", scale=0.5, zero_point=2 * (1 - signed), name="y", **options)
    graph.output(result, (7,), (None,))
    x = torch.tensor([-1e6, -1.5, 0.0, 0.25, 0.75, 1.0, 1e6])
    steps = (x / 0.5 + 2 * (1 - signed)).round().clamp(low, high)
    y = OnnxModel(runnable(graph.model()).SerializeToString())(x)
    assert torch.equal(y, (steps - 2 * (1 - signed)) * 0.5)


@pytest.mark.parametrize("made", [lambda: chain(8), lambda: chain(4), Residual], ids=["8 bits", "4 bits", "residual"])
def test_powers_of_two_and_biases_on_the_grid_give_equal_bits(made: Any, x: Tensor, tmp_path: Path) -> None:
    certificate = qprune.export(made_exact(calibrated(made(), x)), tmp_path / "model.onnx", x, dialect="qonnx")
    assert certificate.exact
    assert certificate.inputs == {"example": 3, "random": 8, "extreme": 4}


def test_file_has_the_shapes_of_the_example(x: Tensor, tmp_path: Path) -> None:
    qprune.export(calibrated(Residual(), x), tmp_path / "model.onnx", x[:1], dialect="qonnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    sizes = [[side.dim_value for side in each.type.tensor_type.shape.dim] for each in (graph.input[0], graph.output[0])]
    assert sizes == [[1, 3, 8, 6], [1, 5, 4, 3]]


def test_ranges_per_channel_and_without_zero_have_nodes_too(x: Tensor, tmp_path: Path) -> None:
    acts = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 4, "per": "channel", "start": 0}
    weights = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": 0}
    dense = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    net = calibrated(qprune.swap(dense, x, quantize=[acts, weights]), x)
    assert [each["scale"].shape for each in quants(write_qonnx(net, x).model)] == [(), (4, 1, 1), ()]
    certificate = qprune.export(net, tmp_path / "model.onnx", x, dialect="qonnx")
    assert certificate.outputs[0].largest < 1e-5


def test_quantizer_that_is_not_active_is_left_out(x: Tensor) -> None:
    net = calibrated(chain(8), x)
    for quant in (module for module in net.modules() if isinstance(module, FakeQuant)):
        quant.active.fill_(False)
    assert not quants(write_qonnx(net, x).model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dialect": "finn"}, 'dialect must be "onnx" or "qonnx"; received \'finn\''),
        ({"dialect": "qonnx", "storage": "int4"}, 'storage = "int4" is for ONNX files of integers'),
        ({"dialect": "qonnx", "dynamic_size": True}, "A QONNX file has the shapes of the example"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str, x: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words):
        qprune.export(nn.Sequential(nn.ReLU()), tmp_path / "model.onnx", x, **options)


@pytest.mark.filterwarnings("default")  # the package's own
@pytest.mark.parametrize("made", [chain, Residual], ids=["chain", "residual"])
def test_executor_of_the_package_qonnx_computes_equal_bits(made: Any, x: Tensor, tmp_path: Path) -> None:
    wrapping = pytest.importorskip("qonnx.core.modelwrapper")
    executing = pytest.importorskip("qonnx.core.onnx_exec")
    shapes = pytest.importorskip("qonnx.transformation.infer_shapes")
    net = made_exact(calibrated(made(), x))
    qprune.export(net, tmp_path / "model.onnx", x, dialect="qonnx")
    model = wrapping.ModelWrapper(str(tmp_path / "model.onnx")).transform(shapes.InferShapes())
    for seed in range(3):
        image = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)) * 3**seed
        result = executing.execute_onnx(model, {model.graph.input[0].name: image.numpy()})
        assert torch.equal(torch.from_numpy(result[model.graph.output[0].name]), net(image))
