"""Small networks to export: with the ranges of quantizers measured, and with every integer exact by hand."""

from typing import Any

import torch
from torch import Tensor, nn

import qprune
from qprune.layers import FakeQuant, sites
from qprune.numerics import power_of_two


@torch.no_grad()
def calibrated(net: nn.Module, images: Tensor) -> nn.Module:
    """Measure every quantizer on one batch and switch it on; normalizations get statistics as after training."""
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)
    return qprune.calibrate(net.eval(), [images])


@torch.no_grad()
def made_exact(net: nn.Module) -> nn.Module:
    """Make every scale a power of two, every zero point even and every bias a multiple of its layer's smallest step.

    Only for networks without normalizations whose layers have quantizers at their inputs.
    """
    for site in sites(net):
        quant: Any = site.quant
        if isinstance(quant, FakeQuant):
            quant.scale.copy_(power_of_two(quant.scale))
            quant.zero_point.copy_(quant.zero_point // 2 * 2)
    for layer in net.modules():
        host: Any = layer
        if getattr(host, "bias", None) is not None and getattr(host, "input_quant", None) is not None:
            step = host.input_quant.scale * host.weight_quant.scale
            host.bias.copy_((host.bias / step).round() * step)
    return net
