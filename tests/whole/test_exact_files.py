"""Networks in exact numerics, and the files made of them: not a bit may differ.

Nor may it between operators that have no integer form, where there are some: with what those of the file made in place
of what torch's make.
"""

from collections import Counter
from itertools import cycle
from typing import Any

import onnx
import pytest
import torch
from small_nets import calibrated
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from qprune.assemble import assemble
from qprune.exact import make_exact
from qprune.exporting import OnnxModel, Written, write_network
from qprune.exporting.comparing import Comparison
from qprune.layers import sites
from qprune.shrinking import shrink
from qprune.spec import read_spec
from qprune.zoo import deployed

BITS = [(8, 8), (4, 8), (4, 4), (2, 4)]
QUICK = [(8, 8, 0.75), (4, 4, 0.75), (2, 4, 0.0)]
NETS = {
    "digits": ("digits/a75_w4a4", (1, 8, 8), []),
    "mobilenetv2": ("cifar100/mobilenetv2/a75_wa4_t_st", (3, 32, 32), ["model.width=0.25"]),
    "densenet121": ("cifar100/densenet121/a75_wa4_t_st", (3, 32, 32), ["model.width=0.125"]),
    "preactresnet18": ("cifar100/preactresnet18/a75_wa4_t_st", (3, 32, 32), ["model.width=0.125"]),
    "unet": ("cityscapes/unet/a75_wa4_t_st", (3, 32, 48), ["model.width=0.0625"]),
}
FLOATING = {
    "frrn_b": ("cityscapes/frrn_b/a75_wa4_t_st", (3, 32, 64), ["model.width=0.0625"]),
    "resnet_generator": ("citysgan/resnet/a75_wa4_t_st", (3, 16, 24), ["model.width=0.125"]),
}
FLOAT_OPERATORS = {"frrn_b": {"Resize": 5}, "resnet_generator": {"InstanceNormalization": 17, "Tanh": 1}}


def exact_network(name: str, weight_bits: int, act_bits: int, sparsity: float, x: Tensor) -> nn.Module:
    spec, _, overrides = (NETS | FLOATING)[name]
    bits = {True: weight_bits, False: act_bits}
    rules = read_spec(spec).quantize
    changes = [f"quantize.{i}.bits={bits[rule.sites[0].at == 'weight']}" for i, rule in enumerate(rules)]
    net: Any = deployed(assemble(read_spec(spec, ["numerics=exact", *overrides, *changes]), 7, tuple(x.shape[1:])))
    for site in sites(net):
        if site.mask is not None:
            site.mask.score.uniform_()
            site.mask.refresh(sparsity)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.data.uniform_(-0.5, 1.5)
        norm.bias.data.normal_(0, 0.3)
    make_exact(net, x[:1])
    return calibrated(net, x)


def is_quick(name: str, *case: float) -> bool:
    """All but the deepest at every width of weights and of activations, with masks and without; two at 4 by 8, too."""
    if name == "densenet121":
        return case == (2, 4, 0.0)
    return case in QUICK or (case == (4, 8, 0.0) and name in ("digits", "preactresnet18"))


CASES = [
    pytest.param(name, *bits, sparsity, marks=[] if is_quick(name, *bits, sparsity) else pytest.mark.slow)
    for name in NETS
    for bits in BITS
    for sparsity in (0.0, 0.75)
]


@pytest.mark.parametrize(("name", "weight_bits", "act_bits", "sparsity"), CASES)
def test_exported_file_computes_the_same_bits(name: str, weight_bits: int, act_bits: int, sparsity: float) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, *NETS[name][1])
    net = exact_network(name, weight_bits, act_bits, sparsity, x)
    written = write_network(net, x[:1])
    assert [layer for layer in written.layers if not layer.integer] == []
    model = OnnxModel(written.model.SerializeToString(), threads=1)
    small = shrink(net, x[:1], fold=True)
    for images in (x, 5 * x, torch.zeros_like(x)):
        with torch.no_grad():
            trained = net(images)
            assert torch.equal(model(images), trained)
            assert torch.equal(small(images), trained)
    assert trained.std() > 0


class FromFile(TorchFunctionMode):
    """Has no operator without an integer form compute: hands out what the file's made, and keeps what each read."""

    def __init__(self, made: list[Tensor]) -> None:
        super().__init__()
        self.made, self.read = cycle(made), list[Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        bilinear = func is nn.functional.interpolate and options["mode"] == "bilinear"
        if not (bilinear or func in (nn.functional.instance_norm, torch.tanh)):
            return func(*args, **options)
        self.read.append(args[0].clone())
        return next(self.made).clone()


def float_operators(written: Written) -> list[Any]:
    nodes = written.model.graph.node
    linear = [any(each.name == "mode" and each.s == b"linear" for each in node.attribute) for node in nodes]
    kinds = ("InstanceNormalization", "Tanh")
    return [node for node, smooth in zip(nodes, linear, strict=True) if node.op_type in kinds or smooth]


def read_and_made(written: Written, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What the file's operators without an integer form read and make."""
    nodes, model = float_operators(written), onnx.ModelProto()
    model.CopyFrom(written.model)
    names = [name for node in nodes for name in (node.input[0], node.output[0])]
    floats = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    model.graph.output.extend(floats)
    values = OnnxModel(model.SerializeToString(), outputs=names)(images)
    return list(values[::2]), list(values[1::2])


@pytest.mark.parametrize(
    ("bits", "sparsity"),
    [(8, 0.75), (4, 0.0), pytest.param(8, 0.0, marks=pytest.mark.slow), pytest.param(4, 0.75, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", FLOATING)
def test_between_float_operators_not_a_bit_differs(name: str, bits: int, sparsity: float) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, *FLOATING[name][1])
    written = write_network(exact_network(name, bits, bits, sparsity, x), x[:1])
    assert [layer for layer in written.layers if not layer.integer] == []
    assert Counter(node.op_type for node in float_operators(written)) == FLOAT_OPERATORS[name]
    read, made = read_and_made(written, x)
    comparison = Comparison(written.net, OnnxModel(written.model.SerializeToString()), written)
    with FromFile(made) as taken:
        comparison.add((x,))
    assert len(taken.read) == 2 * len(read)  # the comparison runs the network for its outputs and for its integers
    assert all(map(torch.equal, taken.read, read + read))
    outputs, quantizers = comparison.agreements()
    assert len(quantizers) == len(written.quantized) > 0
    assert [each for each in (*outputs, *quantizers) if each.equal < 1] == []
    assert outputs[0].scale > 0
    watched = OnnxModel(written.model.SerializeToString(), profile=True)
    watched(x)
    assert watched.operators().real.items() >= FLOAT_OPERATORS[name].items()  # a certificate lists them
