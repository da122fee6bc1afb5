"""Exact numerics: float32 arithmetic that is integer arithmetic, so that integer kernels compute the same bits.

Normalizations are part of the convolutions; those that follow no convolution, and average pooling, become convolutions
of each channel alone, with 8-bit weights. Every tensor that a convolution or a sum reads lies on the grid of a
quantizer, whose scale is a power of two; biases lie on the grid of the integer sums.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from qprune.complete import input_quant, like_the_others, missing_quantizers, quantized_layers
from qprune.errors import PlanError
from qprune.flow import Call, Flow, trace
from qprune.layers import (
    ALIGNED,
    Aligned,
    BiasQuant,
    Compressed,
    CompressedConv2d,
    FakeQuant,
    LearnedQuant,
    in_place_of,
)
from qprune.layers.bias import LARGEST
from qprune.numerics import SMALLEST_STEP, power_of_two
from qprune.selection import fill
from qprune.shrinking import Mode, analyse, apply_cuts, apply_fold, find_folds, scale_and_shift

BITS = 8
POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
SETTLED = Mode(settled=lambda mask: True, training=True)


def make_exact(net: nn.Module, example: Any) -> None:
    """Give a network the form that it has in exact numerics, in place; its quantizers have these numerics already.

    Masks are taken as final, and what they drop goes, as far as it is exactly zero. Of every normalization the running
    statistics are taken as final too, and nothing of them is left to train but a bias and the weights.

    Raises:
        PlanError: if it has no quantizer.

    Example:
        >>> weights = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 8, "start": 0}
        >>> net = qprune.swap(trained, images[:1], quantize=[weights], numerics="exact")  # calls it
    """
    options = like_the_others(net)
    if not options:
        raise PlanError('numerics = "exact" is about quantizers, and there are none; add quantize rules.')
    apply_cuts(net, analyse(net, trace(net, example), SETTLED).cuts)
    _fold(net, trace(net, example))
    for call in trace(net, example).calls:
        new = _as_convolution(net, call, options) if len(call.shape) == 4 else None
        if new is not None:
            net.set_submodule(str(call.path), new)
    for filling in missing_quantizers(trace(net, example), options):
        fill(net, filling)
    for layer, source in bias_grids(trace(net, example), settled=False):
        low, high = source.code_bounds
        levels = max(-low, high) if source.symmetric else high
        layer.bias_quant = in_place_of(layer, BiasQuant(layer.channels_at("output"), levels))


def _fold(net: nn.Module, flow: Flow) -> None:
    folds, _ = find_folds(flow)
    for fold in folds:
        apply_fold(net, fold)
        del net.get_submodule(fold.norm).fold  # it is how the network is, not what became of it


@torch.no_grad()
def _as_convolution(net: nn.Module, call: Call, options: dict[str, Any]) -> nn.Module | None:
    """What takes the place of a normalization that no convolution precedes, or of average pooling."""
    layer: Any = call.layer
    if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats:
        conv = _of_each_channel(net, layer, layer.num_features, kernel_size=1)
        scale, shift = scale_and_shift(layer)
        conv.weight.copy_(scale.view(-1, 1, 1, 1))
        conv.bias.copy_(shift)
    elif isinstance(layer, POOLS) and (window := _window(call)) is not None:
        conv = _of_each_channel(net, layer, call.shape[1], **window, bias=False)
        conv.weight.fill_(1 / conv.weight[0].numel())
    else:
        return None
    conv.add_quant("weight", BITS, per="channel", **options)
    return _joined_alike(layer, conv)


def _of_each_channel(net: nn.Module, layer: nn.Module, channels: int, **options: Any) -> Any:
    return in_place_of(layer, CompressedConv2d(channels, channels, groups=channels, **options), net)


def _window(call: Call) -> dict[str, Any] | None:
    layer: Any = call.layer
    if isinstance(layer, nn.AvgPool2d):
        whole = layer.padding in (0, (0, 0)) or layer.count_include_pad
        plain = whole and not layer.ceil_mode and layer.divisor_override is None
        options = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
        return options if plain else None
    sides = list(zip(call.shapes[0][2:], call.shape[2:], strict=True))
    if any(given % made for given, made in sides):
        return None
    size = tuple(given // made for given, made in sides)
    return {"kernel_size": size, "stride": size}


def _joined_alike(layer: Any, conv: Any) -> Any:
    if isinstance(layer, Compressed):
        conv.output_mask, conv.output_quant = layer.slot("output", "mask"), layer.slot("output", "quant")
    if isinstance(layer, Aligned):
        conv.__class__ = ALIGNED[CompressedConv2d]
        conv.arguments, conv.result = layer.arguments, layer.result
    return conv


def bias_grids(flow: Flow, settled: bool = True) -> Iterator[tuple[Any, FakeQuant]]:
    """Layers that have integer sums after `make_exact`, each with the quantizer of its input.

    If they are to be settled, only those with a `BiasQuant`.

    Example:
        >>> grids = list(bias_grids(trace(net, images[:1])))
    """
    for call in quantized_layers(flow):
        layer: Any = call.layer
        source = input_quant(flow, call)
        if source is not None and (layer.bias_quant is not None or not settled):
            yield layer, source


@torch.no_grad()
def settle_biases(grids: Sequence[tuple[Any, FakeQuant]]) -> None:
    """Give every bias its grid whose input and weight have theirs; what has one keeps it, unless these are learned.

    Where a bias is out of proportion to its weights, these get larger steps, so that its integer has room.

    Example:
        >>> settle_biases(list(bias_grids(trace(net, images[:1]))))
    """
    for layer, source in grids:
        weight, bias_quant = layer.weight_quant, layer.bias_quant
        if not (_is_active(source) and _is_active(weight)):
            continue
        learned = isinstance(source, LearnedQuant) or isinstance(weight, LearnedQuant)
        # decided where the values lie: to ask whether a bias has its grid would wait for a GPU
        settled = torch.zeros_like(bias_quant.active) if learned else bias_quant.active.clone()
        if layer.bias is not None:
            needed = layer.bias.abs() / (source.scale * (LARGEST / 2))
            needed = needed if weight.channels is not None else needed.max()
            weight.widen(torch.where(settled, 0, power_of_two(needed.clamp(min=SMALLEST_STEP))))
        bias_quant.settle(torch.where(settled, bias_quant.scale, source.scale * weight.scale))


def _is_active(quant: FakeQuant) -> bool:
    return bool(quant.active) if quant.told_active is None else quant.told_active
