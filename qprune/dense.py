"""Back to plain layers: masks and quantized weights become parameters."""

import copy
from typing import Any

import torch
from torch import nn

from qprune import zoo
from qprune.errors import PlanError
from qprune.layers import HOSTS, ChannelMask, Compressed


def to_dense(net: nn.Module) -> nn.Module:
    """A copy of ``net`` made of plain layers, with masks and quantized weights baked in.

    Pruned channels stay zero: masks at weights, convolution inputs and normalizations go into the parameters, to the
    bit; a mask on a layer without parameters becomes a fixed depthwise convolution behind it, so there its values must
    be ``(N, C, H, W)``. Activation quantizers are left out, so a network with active ones computes slightly different
    values.

    Raises:
        PlanError: for a mask on the output of a sum or concatenation, which no plain layer can hold.

    Example:
        >>> type(to_dense(PrunedConv2d(2, 3, 1))).__name__
        'Conv2d'
    """
    dense = copy.deepcopy(net)
    like = next(dense.parameters(), torch.empty(0))
    for path, module in list(dense.named_modules()):
        if isinstance(module, Compressed):
            gate = _bake(path, module)
            if gate is not None:
                dense = _replace(dense, path, nn.Sequential(dense.get_submodule(path), gate.to(like)))
    return dense


def without_compressors(net: nn.Module) -> nn.Module:
    """A copy of ``net`` made of plain layers, as if no rule had been applied: all channels count, nothing is rounded.

    Example:
        >>> net = without_compressors(PrunedConv2d(2, 3, 1))
        >>> type(net).__name__, list(net.state_dict())
        ('Conv2d', ['weight', 'bias'])
    """
    dense = copy.deepcopy(net)
    layers: list[Any] = [module for module in dense.modules() if isinstance(module, Compressed)]
    for layer in layers:
        layer.close_slots()
        layer.__class__ = next(plain for plain in HOSTS if isinstance(layer, plain))
    return dense


@torch.no_grad()
def _bake(path: str, module: Any) -> nn.Module | None:
    plain, mask = next(p for p in HOSTS if isinstance(module, p)), module.slot("output", "mask")
    if "weight" in module.sides:
        weight, bias = module._weight_and_bias()
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    for parameter, keep in module.kept_entries():
        parameter.copy_(torch.where(keep, parameter, 0))
    module.close_slots()
    module.__class__ = plain
    return None if mask is None or getattr(module, "weight", None) is not None else _gate(path, plain, mask)


def _gate(path: str, plain: type[nn.Module], mask: ChannelMask) -> nn.Conv2d:
    if issubclass(plain, zoo.Add | zoo.Concat):
        raise PlanError(
            f'"{path}.output" has a mask, and no plain layer can hold it; prune the inputs behind it instead.'
        )
    gate = nn.Conv2d(mask.channels, mask.channels, 1, groups=mask.channels, bias=False).requires_grad_(False)
    gate.weight.copy_(mask.keep.view(-1, 1, 1, 1))
    return gate


def _replace(net: nn.Module, path: str, new: nn.Module) -> nn.Module:
    if not path:
        return new
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, new)
    return net
