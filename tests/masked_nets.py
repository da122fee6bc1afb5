"""Small networks with masks, and the question that every test here asks: is the shrunk one the same?"""

from copy import deepcopy

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from qprune.flow import trace
from qprune.layers import HOSTS, Aligned, Compressed, sites
from qprune.shrinking import Mode, analyse, shrink

FINAL = Mode(settled=lambda mask: True, training=False)
KEEP = (0, 2, 3, 5)  # of six channels
SIX = 6


class Net(nn.Module):
    """Layers by name, and a forward written in the test."""

    def __init__(self, run, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, *inputs):
        return self.run(self, *inputs)


def hosted(layer):
    """The same layer with slots."""
    if not isinstance(layer, Compressed):
        layer.__class__ = HOSTS[type(layer)]
        layer.open_slots()
    return layer


def masked(layer, kept, side="output", channels=None):
    """The layer with a mask that keeps these channels."""
    mask = hosted(layer).add_mask(side, channels=channels)
    mask.keep[:] = False
    mask.keep[list(kept)] = True
    return layer


def lively(net):
    """Statistics and affine parameters as if it had been trained."""
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase | nn.GroupNorm) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.5)
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            layer.running_mean.normal_(0, 0.5)
            layer.running_var.uniform_(0.5, 1.5)
    return net


def conv(into, out, kernel=1, **options):
    return nn.Conv2d(into, out, kernel, **options)


def sandwich(middle, kept=KEEP, masks="producer", after=None, run=None):
    """``before``, a middle and ``after``; a mask between them drops channels."""
    before, after, middle = conv(3, SIX, 3, padding=1), deepcopy(after or conv(SIX, 4)), deepcopy(middle)
    masked(before, kept) if masks == "producer" else masked(after, kept, "input")
    run = run or (lambda net, x: net.after(net.middle(net.before(x))))
    return lively(Net(run, before=before, middle=middle, after=after)).eval()


def outputs(net, x):
    inputs = x if isinstance(x, tuple) else (x,)
    with torch.no_grad():
        return net(*inputs)


def assert_same(one, other, tolerance=1e-5):
    assert one.shape == other.shape
    assert (one - other).abs().max() <= tolerance * one.abs().max()


def shrunk(net, x, tolerance=1e-5, **options):
    """The shrunk network, after comparing it with the masked one on fresh values."""
    net.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small = shrink(net, x, **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    again = torch.randn(x.shape) if isinstance(x, torch.Tensor) else x
    for one, other in zip(*(tree_leaves(outputs(each, again)) for each in (net, small)), strict=True):
        if isinstance(one, torch.Tensor):
            assert_same(one, other, tolerance)
        else:
            assert one == other
    return small


def analysed(net, x):
    return analyse(net, trace(net, x), FINAL)


def held(net, x):
    return analysed(net, x).held


def masks_left(net):
    return [site.name for site in sites(net) if site.mask is not None]


def aligned(net):
    return [path for path, layer in net.named_modules() if isinstance(layer, Aligned)]


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())
