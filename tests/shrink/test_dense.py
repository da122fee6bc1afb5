"""Dense forms of the zoo's networks, shrunk before or after, with quantizers."""

import copy

import pytest
from masked_nets import assert_same, outputs
from test_zoo import FAMILIES, image, quantized

import qprune
from qprune.layers import Align, Aligned, Compressed, sites


def without_activation_quantizers(net):
    net = copy.deepcopy(net)
    for site in sites(net):
        if site.quant is not None and site.side != "weight":
            site.quant.active.fill_(False)
    return net


@FAMILIES
@pytest.mark.parametrize("fold", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dense_form_of_a_shrunk_network_computes_the_same(family, fold):
    net, x = quantized(family, "a75_w4a4"), image(family)
    small = qprune.shrink(net, x, fold=fold)
    dense = qprune.to_dense(small)
    assert_same(outputs(without_activation_quantizers(small), x), outputs(dense, x))
    assert not any(isinstance(module, Compressed) for module in dense.modules())
    aligned = {path for path, layer in small.named_modules() if isinstance(layer, Aligned)}
    assert {path for path, layer in dense.named_modules() if isinstance(layer, Aligned)} == aligned
    assert sum(isinstance(layer, Align) for layer in dense.modules()) == sum(
        isinstance(layer, Align) for layer in small.modules()
    )


@FAMILIES
def test_the_order_of_shrinking_and_making_dense_does_not_matter(family):
    x, net = image(family), without_activation_quantizers(quantized(family, "a75_w4a4"))
    one, other = qprune.shrink(qprune.to_dense(net), x), qprune.to_dense(qprune.shrink(net, x))
    assert_same(outputs(one, x), outputs(other, x))
    assert_same(outputs(net, x), outputs(other, x))
