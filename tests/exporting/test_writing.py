import math
from collections import Counter
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from small_nets import calibrated, made_exact
from torch import Tensor, nn

import qprune
from qprune import zoo
from qprune.errors import ExportError
from qprune.exporting import OnnxModel, Written, write_network, writing
from qprune.exporting.comparing import Comparison
from qprune.layers import Align, CompressedAvgPool2d, QuantConv2d, QuantConvTranspose2d, QuantLinear
from qprune.zoo import Add, Concat


def ran(written: Written, *inputs: Tensor) -> Any:
    return OnnxModel(written.model.SerializeToString(), threads=1)(*inputs)


def kinds(written: Written) -> Counter[str]:
    return Counter(node.op_type for node in written.model.graph.node)


LAYERS = [
    nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2)),
    nn.Conv2d(4, 6, (3, 2), dilation=2, groups=2, bias=False),
    nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(4, 4, 3, padding="same", padding_mode="replicate"),
    nn.Conv2d(4, 4, 3, padding="valid"),
    nn.ConvTranspose2d(4, 6, 2, stride=2),
    nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1),
    nn.ConvTranspose2d(4, 6, 5, stride=3, padding=2, output_padding=(1, 2)),
    nn.ConvTranspose2d(4, 6, 3, padding=1),
    nn.ConvTranspose2d(4, 6, (3, 2), stride=2, bias=False),
    nn.ConvTranspose2d(4, 6, 3, stride=(1, 2), groups=2, dilation=2),
    nn.ConvTranspose2d(4, 6, 2, stride=3),
    nn.BatchNorm2d(4),
    nn.InstanceNorm2d(4),
    nn.InstanceNorm2d(4, affine=True),
    nn.GroupNorm(2, 4),
    nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.25), nn.LeakyReLU(0.2), nn.ELU(0.5), nn.CELU(0.5), nn.SELU(), nn.SiLU(),
    nn.GELU(), nn.GELU("tanh"), nn.PReLU(4), nn.GLU(1), nn.LogSigmoid(), nn.Softplus(),
    nn.PixelShuffle(2), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Softsign(),
    nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(2, count_include_pad=False),
    nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((2, 5)), nn.AdaptiveMaxPool2d(1),
    nn.ZeroPad2d((1, 2, 0, 3)), nn.ReflectionPad2d(2), nn.ReplicationPad2d((0, 1, 2, 0)),
    nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(size=(12, 15)),
    nn.Identity(), nn.Dropout(), nn.Flatten(), nn.Flatten(2), nn.Linear(10, 3), nn.LayerNorm(10), nn.LayerNorm((8, 10)),
    Align([2, 0]), Align([1, -1, 0]), Align([1, -1, 0], [0.0, 3.0, 0.0]),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_layer_computes_the_same(layer: nn.Module) -> None:
    net = nn.Sequential(layer).eval()
    x = torch.randn(2, 4, 8, 10)
    torch.testing.assert_close(ran(write_network(net, x[:1]), x), net(x), atol=1e-5, rtol=1e-5)


class Functional(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x), x)


def normed(x: Tensor, training: bool = False) -> Tensor:
    """As timm's layers of normalization and activation do it."""
    vector = torch.arange(1.0, 5.0, device=x.device)
    return F.batch_norm(x, vector - 1, vector, -vector, vector / 2, training, eps=0.1)


def shuffled(x: Tensor) -> Tensor:
    """As torchvision's ShuffleNet does it: with arithmetic on sizes."""
    count, channels, height, width = x.size()
    x = x.view(count, 2, channels // 2, height, width)
    return x.transpose(1, 2).contiguous().view(count, channels, height, width)


def asserted(y: Tensor, x: Tensor) -> Tensor:
    """As torchvision's networks assert what they are given."""
    torch._assert(x.dim() == 4, f"images, not {x.shape}")
    return y + x


def padded(y: Tensor, x: Tensor) -> Tensor:
    """With zeros for a result as large as the input asks for, computed as timm does it."""
    sides = [max((math.ceil(n / 3) - 1) * 3 + 5 - n, 0) for n in y.shape[2:]]
    return F.pad(y, (sides[1] // 2, sides[1] - sides[1] // 2, sides[0] // 2, sides[0] - sides[0] // 2))[:, 0]


def convolved(y: Tensor, x: Tensor) -> Tensor:
    """With a weight that is no layer's."""
    weight = torch.arange(4.0 * 3 * 3 * 2).view(2, 4, 3, 3).sin()
    return F.conv2d(y, weight, stride=2, padding=1)


FUNCTIONS = {
    "add": lambda y, x: y + x, "number": lambda y, x: 2 * y - 0.5,
    "gate": lambda y, x: y * x.mean((2, 3), keepdim=True).sigmoid(), "divide": lambda y, x: y / (x.abs() + 1),
    "power": lambda y, x: (y.abs() + 1) ** 2, "cat": lambda y, x: torch.cat([y, x], 1),
    "relu": lambda y, x: F.relu(y), "relu6": lambda y, x: F.relu6(y), "clamp": lambda y, x: y.clamp(-0.1, 0.2),
    "leaky": lambda y, x: F.leaky_relu(y, 0.1), "silu": lambda y, x: F.silu(y), "gelu": lambda y, x: F.gelu(y),
    "hardswish": lambda y, x: F.hardswish(y), "softmax": lambda y, x: torch.softmax(y, dim=1),
    "flatten": lambda y, x: torch.flatten(y, 1), "view": lambda y, x: y.view(y.size(0), -1),
    "reshape": lambda y, x: y.reshape(y.shape[0], 2, -1), "permute": lambda y, x: y.permute(0, 2, 3, 1),
    "transpose": lambda y, x: y.transpose(1, 2), "max_pool": lambda y, x: F.max_pool2d(y, 2),
    "avg_pool": lambda y, x: F.avg_pool2d(y, 2, padding=1), "adaptive": lambda y, x: F.adaptive_avg_pool2d(y, 1),
    "interpolate": lambda y, x: F.interpolate(y, scale_factor=2.0),
    "to_size": lambda y, x: F.interpolate(F.max_pool2d(y, 2), size=x.shape[2:]),
    "bilinear": lambda y, x: F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False),
    "pad": lambda y, x: F.pad(y, (1, 0, 2, 3)), "reflect": lambda y, x: F.pad(y, (1, 1, 1, 1), mode="reflect"),
    "slice": lambda y, x: y[:, 1:3], "chunk": lambda y, x: y.chunk(2, 1)[1],
    "squeeze": lambda y, x: y.unsqueeze(1).squeeze(1), "F.softmax": lambda y, x: F.softmax(y, dim=1),
    "hardtanh": lambda y, x: F.hardtanh(y), "bounded": lambda y, x: F.hardtanh(y, -0.5, 0.25),
    "whole": lambda y, x: y // 0.25, "largest": lambda y, x: F.adaptive_max_pool2d(y, 1),
    "converted": lambda y, x: y.to(x.dtype).to(x.device).float(),
    "made": lambda y, x: y + torch.full((1,), 2.0, device=x.device),
    "dimensions": lambda y, x: y * x.ndim + x.dim(), "side": lambda y, x: y.flatten(1) / x.size(dim=1),
    "mean": lambda y, x: y - y.mean(), "sum": lambda y, x: y + y.sum((2, 3), keepdim=True),
    "linear": lambda y, x: F.linear(y, normed(y).mean((0, 1))), "norm": lambda y, x: normed(y),
    "biased": lambda y, x: F.linear(y, normed(y).mean((0, 1)), normed(y).mean((0, 1, 3))),
    "shuffle": lambda y, x: shuffled(y),
    "flatten_later": lambda y, x: y.flatten(2), "mT": lambda y, x: y.mT, "index": lambda y, x: y[:, 0],
    "cos": lambda y, x: torch.cos(y), "decided": lambda y, x: y if x.shape[2] > x.shape[3] else y + x,
    "iterated": lambda y, x: sum(part for part in y.chunk(2, 1)), "unbind": lambda y, x: y.unbind(1)[2],
    "stack": lambda y, x: torch.stack([y, x], 2), "glu": lambda y, x: F.glu(y, 1), "asserted": asserted,
    "layer_norm": lambda y, x: F.layer_norm(y, (8, 10)), "getattr": lambda y, x: getattr(y, "da" + "ta") * 2,
    "features": lambda y, x: F.linear(y.permute(0, 2, 3, 1), normed(y).mean((0, 2))[:, :4]),
    "negative_slice": lambda y, x: y[:, -3:-1, 2:-2], "to_a_side": lambda y, x: y[..., : x.shape[2] // 2, :],
    "expand": lambda y, x: y.mean(1, keepdim=True).expand_as(x), "rsub": lambda y, x: 1 - y,
    "alpha": lambda y, x: torch.add(y, x, alpha=0.5), "functional_conv": convolved,
    "log_sigmoid": lambda y, x: F.logsigmoid(y),
    "matmul": lambda y, x: y.matmul(x.transpose(2, 3)), "dropout": lambda y, x: F.dropout(y, 0.5, False),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_computes_the_same_at_other_batch_sizes(name: str) -> None:
    net = Functional(FUNCTIONS[name]).eval()
    x = torch.randn(3, 4, 8, 10)
    torch.testing.assert_close(ran(write_network(net, x[:1]), x), net(x), atol=1e-5, rtol=1e-5)


class NormAndAct(nn.BatchNorm2d):
    """As timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(super().forward(x))


class Same(nn.Conv2d):
    """As timm's: padded so that the result is as large as its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 1, 0)), self.weight, self.bias, self.stride)


def test_layers_that_inherit_from_torchs_are_what_they_compute() -> None:
    net = nn.Sequential(Same(4, 6, 2), NormAndAct(6), nn.Conv2d(6, 3, 1)).eval()
    with torch.no_grad():
        net[1].running_mean.normal_()  # type: ignore[operator,union-attr]
    x = torch.randn(2, 4, 8, 10)
    torch.testing.assert_close(ran(write_network(net, x[:1]), x), net(x), atol=1e-5, rtol=1e-5)


def test_outputs_in_tables_are_written_one_behind_the_other() -> None:
    net = Functional(lambda y, x: {"y": y, "more": [x, 2 * y]}).eval()
    x = torch.randn(3, 4, 8, 10)
    y = net(x)["y"]
    for one, other in zip(ran(write_network(net, x[:1]), x), (y, x, 2 * y), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_layers_may_be_called_with_named_arguments() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.linear = nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(input=self.act(input=self.conv(input=x)).mean((2, 3)))

    x = torch.randn(3, 3, 5, 7)
    net = qprune.swap(Named(), x, quantize=[{"sites": [{"types": ["Conv2d"], "at": "input"}], "bits": 8, "start": 0}])
    net = calibrated(net, x)
    torch.testing.assert_close(ran(write_network(net, x), x), net(x), atol=1e-5, rtol=1e-5)


def test_unknown_function_is_named_with_the_way_out() -> None:
    words = r"ONNX file: digamma\(tensor\) is a call .*at `write_network\(.* docs/ref"
    with pytest.raises(ExportError, match=words):
        write_network(Functional(lambda y, x: torch.digamma(y)), torch.zeros(1, 4, 8, 10))


class Digamma(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.digamma(x)


def test_unknown_call_is_named_with_its_layer_and_the_line_of_code() -> None:
    words = r"1: digamma\(tensor\) is .*, at `return torch.digamma\(x\)` \(test_writing.py, line \d+\)"
    with pytest.raises(ExportError, match=words):
        write_network(nn.Sequential(nn.ReLU(), Digamma()), torch.zeros(1, 12, 16))


def test_forward_that_decides_by_values_is_refused() -> None:
    net = Functional(lambda y, x: y if y.sum() > 0 else x)
    with pytest.raises(ExportError, match=r"could not be followed|decides by values"):  # on the meta device already
        write_network(net, torch.zeros(1, 4, 8, 10))


def test_unknown_storage_is_refused() -> None:
    with pytest.raises(ExportError, match='storage must be "int8" or "int4"; received \'int3\''):
        write_network(nn.Sequential(nn.ReLU()), torch.zeros(1, 2), storage="int3")


class Residual(nn.Module):
    """Every kind of layer that has an integer form: depthwise, transposed, linear, sum, concatenation, pooling."""

    def __init__(self, weight_bits: int, act_bits: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"weight_bits": weight_bits, "act_bits": act_bits}
        self.first = QuantConv2d(3, 8, 3, padding=1, **options)
        self.depthwise = QuantConv2d(8, 8, 3, padding=1, groups=8, **options)
        self.point = QuantConv2d(8, 8, 1, **options)
        self.add, self.concat = Add(), Concat()
        self.pool = nn.MaxPool2d(2)
        self.low = QuantConv2d(8, 12, 3, padding=1, **options)
        self.grow = QuantConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1, **options)
        self.merge = QuantConv2d(16, 5, 3, padding=1, padding_mode="reflect", **options)
        self.linear = QuantLinear(5 * 8 * 12, 10, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = self.add(self.point(F.relu6(self.depthwise(x))), x)
        y = self.grow(F.relu(self.low(self.pool(x))))
        return self.linear(F.relu(self.merge(self.concat(y, x))).flatten(1))


@pytest.mark.parametrize(("weight_bits", "act_bits"), [(8, 8), (4, 8), (4, 4), (2, 4)])
def test_powers_of_two_and_biases_on_the_grid_give_equal_bits(weight_bits: int, act_bits: int) -> None:
    torch.manual_seed(weight_bits + act_bits)
    x = torch.randn(5, 3, 8, 12)
    net = made_exact(calibrated(Residual(weight_bits, act_bits), x))
    written = write_network(net, x[:1])
    assert [layer.reason for layer in written.layers] == [""] * 7
    assert torch.equal(ran(written, x), net(x))
    assert torch.equal(ran(written, 9 * x), net(9 * x))  # beyond every range


def test_weights_are_unsigned_where_sums_of_signed_ones_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "saturates", lambda: True)
    x = torch.randn(5, 3, 8, 12)
    net = made_exact(calibrated(Residual(8, 8), x))
    written = write_network(net, x[:1])
    integers = {tensor.data_type for tensor in written.model.graph.initializer if tensor.name.endswith(".weight")}
    assert integers == {onnx.TensorProto.UINT8}
    assert torch.equal(ran(written, x), net(x))


def test_normalization_of_integers_is_an_integer_layer_where_a_quantizer_follows() -> None:
    x = torch.randn(5, 6, 8, 12)
    acts = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 8, "start": 0}
    net: Any = qprune.swap(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6), nn.ReLU()), x[:1], quantize=[acts])
    calibrated(net, x)
    with torch.no_grad():
        net[1].weight[:3] = torch.tensor([-0.7, 0.0, 1e-12])  # a usual factor, none, and one that is next to none
        net[1].bias[:3] = torch.tensor([0.9, 0.0, 0.8])
    written = write_network(net, x[:1])
    assert kinds(written)["Conv"] == 1
    assert kinds(written)["Mul"] == 0
    comparison = Comparison(net, OnnxModel(written.model.SerializeToString()), written)
    comparison.add((x,))
    before, behind = comparison.agreements()[1]
    assert before.equal == behind.within_one == 1
    assert behind.equal > 0.99


def test_normalization_of_integers_that_nothing_quantizes_stays_real() -> None:
    x = torch.randn(2, 6, 8, 12)
    acts = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 8, "start": 0}
    net = calibrated(qprune.swap(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6)), x[:1], quantize=[acts]), x)
    written = write_network(net, x[:1])
    assert (kinds(written)["Conv"], kinds(written)["Mul"]) == (0, 1)
    torch.testing.assert_close(ran(written, x), net(x))


def test_integers_are_put_among_constants_by_a_convolution_if_these_are_integers_too() -> None:
    x = torch.rand(2, 3, 8, 12)
    acts = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 4, "start": 0}
    net: Any = calibrated(qprune.swap(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), x[:1], quantize=[acts]), x)
    step = float(net[0].output_quant.scale)
    for fill, kind in ((0.0, "Conv"), (3 * step, "Conv"), (0.5 * step, "Where")):
        net[1] = Align([2, -1, 0, 0, -1], [0.0, fill, 0.0, 0.0, 0.0])
        written = write_network(net, x[:1])
        assert {name for name in ("Conv", "Where") if kinds(written)[name]} == {kind}
        assert torch.equal(ran(written, x), net(x))


def test_integers_of_the_file_are_those_that_were_trained() -> None:
    x = torch.randn(2, 3, 8, 12)
    net = calibrated(Residual(4, 8), x)
    initializers = write_network(net, x).model.graph.initializer
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in initializers}
    integers, _ = net.get_submodule("low").int_weight()  # type: ignore[operator]
    assert (tensors["low.weight"] == integers.numpy()).all()
    assert tensors["low.bias"].dtype == "int32"


def test_rectifiers_become_bounds_of_the_integers() -> None:
    x = torch.randn(2, 3, 8, 12)
    rectifiers = (nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.25, 0.5))
    for bits in (8, 4):
        layers = [layer for act in rectifiers for layer in (QuantConv2d(3, 3, 1, weight_bits=8, act_bits=bits), act)]
        net = made_exact(calibrated(nn.Sequential(*layers, QuantConv2d(3, 3, 1, weight_bits=8, act_bits=bits)), x))
        written = write_network(net, x)
        assert kinds(written)["Relu"] == 0
        assert bits == 8 or kinds(written)["Clip"] == kinds(written)["QuantizeLinear"]
        assert torch.equal(ran(written, 10 * x), net(10 * x))


def test_pooling_for_the_maximum_and_padding_move_integers() -> None:
    x = torch.randn(2, 3, 8, 12)
    options: dict[str, Any] = {"weight_bits": 8, "act_bits": 8, "at": "output"}
    transposed = QuantConvTranspose2d(3, 4, 2, stride=2, **options)
    moving = [nn.MaxPool2d(2), nn.ReflectionPad2d(1), nn.ZeroPad2d(1), nn.Upsample(scale_factor=2), nn.Flatten()]
    net = calibrated(nn.Sequential(QuantConv2d(3, 3, 1, **options), transposed, *moving), x)
    written = write_network(net, x)
    values = onnx.shape_inference.infer_shapes(written.model).graph.value_info
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    moved = ("MaxPool", "Pad", "DepthToSpace", "Resize", "Flatten")
    read = [node.input[0] for node in written.model.graph.node if node.op_type in moved]
    assert len(read) == 6
    assert {types[name] for name in read} == {onnx.TensorProto.UINT8}
    y = ran(written, x)
    assert (y - net(x)).abs().max() < 1.5 * transposed.output_quant.scale  # type: ignore[union-attr]


def test_weights_of_four_bits_take_half_the_bytes_when_packed() -> None:
    x = torch.randn(2, 8, 6, 7)
    net = calibrated(nn.Sequential(QuantConv2d(8, 256, 3, weight_bits=4, act_bits=8)), x)
    wide, packed = (write_network(net, x, storage=storage) for storage in ("int8", "int4"))
    assert wide.model.ByteSize() - packed.model.ByteSize() > 0.45 * net[0].weight.numel()  # type: ignore[index,operator,union-attr]
    assert [layer.reason for layer in packed.layers] == ["its weights are held as 4-bit integers"]
    torch.testing.assert_close(ran(packed, x), net(x))


def test_height_and_width_are_free_where_the_output_has_them() -> None:
    net = zoo.create("unet", classes=5, width=0.0625).eval()
    written = write_network(net, torch.zeros(1, 3, 32, 48))
    x = torch.randn(2, 3, 48, 64)
    torch.testing.assert_close(ran(written, x), net(x), atol=1e-4, rtol=1e-4)


def test_pruned_channels_are_not_in_the_file() -> None:
    net = qprune.build("digits/a75_layerwise").eval()
    masks = [module for module in net.modules() if type(module).__name__ == "ChannelMask"]
    for mask in masks:
        mask.score.uniform_()
        mask.refresh(0.75)
    x = torch.randn(3, 1, 8, 8)
    written = write_network(net, x)
    whole = write_network(qprune.build("digits/baseline").eval(), x)
    assert written.model.ByteSize() < 0.2 * whole.model.ByteSize()
    torch.testing.assert_close(ran(written, x), net(x), atol=1e-5, rtol=1e-5)


def test_normalization_between_concatenation_and_rectifier_stays() -> None:
    net = zoo.create("densenet121", classes=7, width=0.125).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ran(write_network(net, x), x), net(x), atol=1e-4, rtol=1e-4)


def test_a_zero_row_with_a_bias_keeps_it() -> None:
    x = torch.randn(2, 3, 5, 7)
    net = calibrated(nn.Sequential(QuantConv2d(3, 4, 1, weight_bits=8, act_bits=8)), x)
    with torch.no_grad():
        net[0].weight[1] = 0  # type: ignore[index,operator]
        net[0].bias[1] = 3.0  # type: ignore[index,operator]
        net[0].weight_quant.scale[1] = torch.finfo(torch.float32).tiny  # type: ignore[index,union-attr]
    torch.testing.assert_close(ran(write_network(net, x), x), net(x), atol=1e-2, rtol=0)


def test_quantizer_with_a_range_per_channel_computes_in_floats() -> None:
    net = qprune.swap(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 5, 7),
        quantize=[{"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 4, "per": "channel", "start": 0},
                  {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "start": 0}],
    )  # fmt: skip
    x = torch.randn(2, 3, 5, 7)
    net = calibrated(net, x)
    written = write_network(net, x)
    assert written.layers[1].reason == "its input has no quantizer of one range"
    torch.testing.assert_close(ran(written, x), net(x), atol=1e-5, rtol=1e-5)


def test_the_network_is_not_touched() -> None:
    x = torch.randn(2, 3, 8, 12)
    net = calibrated(Residual(8, 8), x).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    write_network(net, x)
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


class Growing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.max_pool2d(x, 2), output_size=x.shape[2:])


REFUSED = {
    "divisor": (
        nn.AvgPool2d(2, divisor_override=3, ceil_mode=True),
        r"0: avg_pool2d\(tensor, .*: a divisor of its own",
    ),
    "chance": (
        Functional(lambda y, x: y + torch.rand_like(x)),
        "rand_like.* is a call .*: it makes random numbers, at",
    ),
    "dropping": (Functional(lambda y, x: y + F.dropout(x)), "it drops in eval mode, too; pass training=self.training"),
    "statistics": (
        Functional(lambda y, x: normed(y, training=True)),
        "native_batch_norm.* is a call .*: it normalizes by the statistics of the images that come together",
    ),
    "no tensor": (
        Functional(lambda y, x: (y, 3)),
        "The result output_1 is no tensor, and cannot be one of an ONNX file",
    ),
    "size": (Growing(), "up is told its output_size in each call, .*; give the layer its output_padding"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_there_is_no_way_to_write_is_said(name: str) -> None:
    layer, words = REFUSED[name]
    net = layer if isinstance(layer, (Functional, Growing)) else nn.Sequential(layer)
    with pytest.raises(ExportError, match=words):
        write_network(net, torch.zeros(1, 4, 8, 10))


def test_other_numbers_than_float32_are_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1)).half()
    with pytest.raises(
        ExportError, match=r"0\.weight is torch\.float16, and a file computes in float32\. Export net\.fl"
    ):
        write_network(net, torch.zeros(1, 3, 5, 7, dtype=torch.float16))
    with pytest.raises(ExportError, match=r"an input is torch\.int64, and a file computes in float32"):
        write_network(nn.Sequential(nn.ReLU()), torch.zeros(1, 3, dtype=torch.int64))


def test_only_a_profiled_model_knows_what_ran() -> None:
    model = OnnxModel(write_network(nn.Sequential(nn.ReLU()), torch.zeros(1, 2)).model.SerializeToString())
    with pytest.raises(ExportError, match="Only a model made with profile=True knows what ran"):
        model.operators()


def test_a_profile_tells_how_long_each_node_took_in_each_run():
    image = torch.randn(2, 3, 9, 11)
    content = write_network(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Softmax(1)), image).model.SerializeToString()
    model = OnnxModel(content, threads=1, profile=True)
    for _ in range(4):
        model(image)
    nodes = {node.kind: node for node in model.nodes()}
    assert {"Conv", "Softmax"} <= set(nodes)
    assert all(len(node.seconds) == 4 and 0 <= min(node.seconds) < 1 for node in nodes.values())


class Halved(nn.Module):
    """Four images are looked at in another way than two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.reshape(4, 2, -1) if len(y) == 4 else y.reshape(2, 4, -1)


def test_a_forward_that_fixes_the_number_of_images_is_refused() -> None:
    with pytest.raises(ExportError, match="its forward fixes the number of images, and must take any"):
        write_network(Halved(), torch.zeros(2, 3, 8, 8))


class Echo(nn.Module):
    """Results have the names of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 1), nn.Linear(5, 4)

    def forward(self, image: Tensor, output: Tensor) -> dict[str, Tensor]:
        return {"image": self.conv(image) + self.linear(output)[:, :, None, None], "conv.weight": output + 1}


def test_inputs_keep_their_names_where_results_have_the_same() -> None:
    net, inputs = Echo(), (torch.randn(2, 3, 6, 7), torch.randn(2, 5))
    model = OnnxModel(write_network(net, inputs).model.SerializeToString())
    assert (model.inputs, model.outputs) == (("image", "output"), ("image_1", "conv.weight"))
    for result, expected in zip(model(*inputs), net(*inputs).values(), strict=True):
        torch.testing.assert_close(result, expected)


def test_a_host_that_cannot_be_written_is_refused_with_its_path() -> None:
    pool = CompressedAvgPool2d(2, divisor_override=3, ceil_mode=True)
    pool.add_quant("output", 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), pool)
    words = "1 is a CompressedAvgPool2d for which there is no way into an ONNX file: a divisor of its own with"
    with pytest.raises(ExportError, match=words):
        write_network(net, torch.zeros(1, 3, 8, 10))
