"""Back to plain layers: masks and quantized weights become parameters."""

import copy
import math
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from qprune import zoo
from qprune.errors import PlanError
from qprune.layers import ALIGNED, HOSTS, Align, Aligned, ChannelMask, Compressed, in_place_of

TOLERANCE = 1e-5  # of the largest value: all but the sums of exact numerics are the same to the bit


def to_dense(net: nn.Module) -> nn.Module:
    """A copy of ``net`` made of plain layers, with masks and quantized weights baked in.

    Pruned channels stay zero: masks at weights, convolution inputs and normalizations go into the parameters, to the
    bit; a mask on a layer without parameters becomes a fixed depthwise convolution behind it, so there its values must
    be ``(N, C, H, W)``. Activation quantizers are left out, so a network with active ones computes slightly different
    values. Layers of a shrunk network that gather or scatter channels go on doing so (``Aligned<Type>``), and scatter
    zeros where they had a mask.

    Each layer is compared with what it replaces, on random values and in eval mode.

    Raises:
        PlanError: for a mask on the output of a sum or concatenation, which no plain layer can hold; for a class whose
            own forward computes something else than the plain layer.

    Example:
        >>> type(to_dense(PrunedConv2d(2, 3, 1))).__name__
        'Conv2d'
    """
    dense = copy.deepcopy(net)
    for path, host in list(dense.named_modules()):
        if isinstance(host, Compressed):
            before = copy.deepcopy(host)
            plain = _plain(path, host, dense)
            _check(path, before, plain)
            dense = _replace(dense, path, plain)
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
        layer.__class__ = _plain_type(layer)
    return dense


@torch.no_grad()
def _plain(path: str, module: Any, net: nn.Module) -> nn.Module:
    """Turn a host into a plain layer, with a layer behind it for a mask that has no parameters to be baked into."""
    kind, mask = _plain_type(module), module.slot("output", "mask")
    if "weight" in module.sides:
        weight, bias = module._weight_and_bias()
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(bias)
    for parameter, keep in module.kept_entries():
        parameter.copy_(torch.where(keep, parameter, 0))
    module.close_slots()
    joined = isinstance(module, Aligned)
    module.__class__ = ALIGNED[kind] if joined else kind
    if mask is None or getattr(module, "weight", None) is not None:
        return module
    if not joined:
        return _gated(path, module, mask, net)
    module.result = in_place_of(module, _masked(module.result, mask), net)
    return module


def _plain_type(module: nn.Module) -> type[nn.Module]:
    return next(plain for plain in HOSTS if isinstance(module, plain))


def _masked(result: Align | None, mask: ChannelMask) -> Align:
    """Scatter as before, and zeros where the mask drops."""
    keep = mask.keep.tolist()
    index, fill = (range(len(keep)), [0.0] * len(keep)) if result is None else (result.index, result.fill)
    return Align([i if i < 0 or keep[i] else -1 for i in index], fill)


def _gated(path: str, layer: nn.Module, mask: ChannelMask, net: nn.Module) -> nn.Module:
    if isinstance(layer, zoo.Add | zoo.Concat):
        raise PlanError(
            f'"{path}.output" has a mask, and no plain layer can hold it; prune the inputs behind it instead.'
        )
    gate = nn.Conv2d(mask.channels, mask.channels, 1, groups=mask.channels, bias=False)
    gated = in_place_of(layer, nn.Sequential(layer, gate), net)
    gate.weight.copy_(mask.keep.view(-1, 1, 1, 1))
    return gated


def _replace(net: nn.Module, path: str, new: nn.Module) -> nn.Module:
    if not path:
        return new
    net.set_submodule(path, new)
    return net


@torch.no_grad()
def _check(path: str, host: Any, plain: nn.Module) -> None:
    """Compare a layer, without its activation quantizers, with what replaces it."""
    values = _values(host, plain)
    if values is None or values[0].is_meta:
        return
    for side in {"input", "output"}.intersection(host.sides):
        setattr(host, f"{side}_quant", None)
    difference = _difference(host.eval()(*values), copy.deepcopy(plain).eval()(*values))
    if difference > TOLERANCE:
        kind = _plain_type(host).__name__
        raise PlanError(
            f'"{path}" is a {type(host).__name__} that computes something else than a {kind}: they differ by '
            f"{difference:.2g} of the largest value. Put what its forward adds into a module of its own."
        )


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value; NaN and infinity are like themselves alone."""
    if one.shape != other.shape:
        return math.inf
    same = (one == other) | (one.isnan() & other.isnan())
    size = one.abs().nan_to_num(0, 0, 0).max().clamp_min(1e-6)
    return float((one - other).abs().div(size).nan_to_num(math.inf).masked_fill(same, 0).max())


def _values(host: Any, plain: nn.Module) -> list[Tensor] | None:
    """Random arguments that a layer takes; None where it does not tell their channels."""
    counts: list[Any] = [_channels(host, argument) for argument in getattr(host, "arguments", [None])]
    if None in counts:
        return None
    like = next(chain(plain.parameters(), plain.buffers(), host.buffers()))
    dtype = like.dtype if like.is_floating_point() else torch.float32
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, count, *_sides(host)) for count in counts]
    return [torch.randn(shape, generator=generator).to(like.device, dtype) for shape in shapes]


def _channels(host: Any, argument: Any) -> int | None:
    if isinstance(argument, Align):
        return max(0, *argument.index) + 1
    if isinstance(host, zoo.Concat):
        return None
    mask: ChannelMask | None = host.slot("output", "mask")
    known: int | None = host.channels_at("input" if "input" in host.sides else "output")
    return mask.channels if known is None and mask is not None else known


def _sides(host: Any) -> tuple[int, ...]:
    """Height and width that a kernel fits into, whatever is padded."""
    if isinstance(host, nn.Linear):
        return ()
    names = ("kernel_size", "dilation", "padding")
    kernel, dilation, padding = (_largest(getattr(host, name, 0)) for name in names)
    side = 3 + kernel * max(1, dilation) + padding
    return side, side + 1


def _largest(numbers: Any) -> int:
    return max(numbers) if isinstance(numbers, tuple) else numbers if isinstance(numbers, int) else 0
