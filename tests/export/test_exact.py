"""Networks in exact numerics, and the files made of them: not a bit may differ."""

from typing import Any

import pytest
import torch
from small_nets import calibrated
from torch import Tensor, nn

from qprune.assemble import assemble
from qprune.exact import make_exact
from qprune.export import OnnxModel, write_network
from qprune.layers import sites
from qprune.shrink import shrink
from qprune.spec import read_spec
from qprune.zoo import deployed

BITS = [(8, 8), (4, 8), (4, 4), (2, 4)]
QUICK = [(8, 8, 0.75), (4, 8, 0.0), (4, 4, 0.75), (2, 4, 0.0)]
NETS = {
    "digits": ("digits/a75_w4a4", (1, 8, 8), []),
    "mobilenetv2": ("cifar100/mobilenetv2/a75_wa4_t_st", (3, 32, 32), ["model.width=0.25"]),
    "densenet121": ("cifar100/densenet121/a75_wa4_t_st", (3, 32, 32), ["model.width=0.125"]),
    "preactresnet18": ("cifar100/preactresnet18/a75_wa4_t_st", (3, 32, 32), ["model.width=0.125"]),
    "unet": ("cityscapes/unet/a75_wa4_t_st", (3, 32, 48), ["model.width=0.0625"]),
}


def exact_network(name: str, weight_bits: int, act_bits: int, sparsity: float, x: Tensor) -> nn.Module:
    spec, _, overrides = NETS[name]
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


CASES = [
    pytest.param(*bits, sparsity, marks=[] if (*bits, sparsity) in QUICK else pytest.mark.slow)
    for bits in BITS
    for sparsity in (0.0, 0.75)
]


@pytest.mark.parametrize(("weight_bits", "act_bits", "sparsity"), CASES)
@pytest.mark.parametrize("name", NETS)
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
