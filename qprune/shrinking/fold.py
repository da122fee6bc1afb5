"""Folding normalizations into the convolutions beside them, for networks that are not trained any more."""

from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from qprune.flow import NORMS, Call, Flow
from qprune.layers import ALIGNED, HOSTS, Align, Aligned, Compressed, CompressedWeight, FakeQuant, bare, in_place_of
from qprune.shrinking.layer_rules import scale_and_shift
from qprune.shrinking.rules import adjustable, hooked
from qprune.shrinking.weighted_rule import borderless
from qprune.shrinking.weights import WEIGHTED, output_count, rows


@frozen
class Fold:
    """A normalization that becomes part of a convolution."""

    norm: str
    weighted: str  # the path of the convolution or linear layer
    before: bool  # whether the normalization comes first


def find_folds(flow: Flow) -> tuple[list[Fold], list[str]]:
    """What can be folded, and for each normalization that cannot the reason, in a sentence.

    Example:
        >>> from qprune.flow import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> find_folds(trace(net, torch.zeros(1, 3, 5, 7)))
        ([Fold(norm='1', weighted='0', before=False)], [])
    """
    folds, reasons = [], []
    for call in flow.calls:
        if isinstance(call.layer, (*NORMS, nn.GroupNorm)):
            found = _fold(flow, call)
            if isinstance(found, Fold):
                folds.append(found)
            else:
                reasons.append(f"{call.path}: {found}")
    return folds, list(dict.fromkeys(reasons))


def _fold(flow: Flow, call: Call) -> Fold | str:
    norm: Any = call.layer
    if not getattr(norm, "track_running_stats", False):
        return "its statistics are those of each image"
    if len(flow.of(str(call.path))) > 1:
        return "it is called several times"
    if not adjustable(norm) or hooked(norm) or str(call.path) in {*flow.borrowed, *flow.measured}:
        return "it is a class of its own, has a hook, or its parameters are read by others"
    behind = _why_not_behind(flow, call)
    if behind is None:
        source = flow.source(call)
        assert source is not None
        return Fold(str(call.path), str(source.path), before=False)
    ahead = _why_not_ahead(flow, call)
    if ahead is None:
        return Fold(str(call.path), str(flow.readers(call)[0].path), before=True)
    return f"{behind}; {ahead}"


def _why_not_behind(flow: Flow, call: Call) -> str | None:
    source = flow.source(call)
    if source is None or not _is_weighted(source):
        return "no convolution comes right before it"
    if _is_tied(flow, source):
        return f"{source.path} before it shares its weights, masks them, or has a hook"
    if source.index in flow.watched:
        return f"a hook of {flow.watched[source.index]} sees what is between it and {source.path}"
    if len(flow.readers(source)) > 1 or source.index in flow.outputs or len(flow.of(str(source.path))) > 1:
        return f"{source.path} before it is read by others, too"
    if _slot(source.layer, "output", "mask") or _slot(source.layer, "output", "quant") or _result(source.layer):
        return f"{source.path} before it has a mask, a quantizer or a scatter at its output"
    if _gathers(call.layer):
        return "it gathers its input"
    if _slot(call.layer, "output", "mask"):
        return "it has a mask"
    quant = _slot(source.layer, "weight", "quant")
    if quant is not None and not _has_room(quant, call.layer):
        return f"the integer weights of {source.path} before it would change"
    return None


def _has_room(quant: FakeQuant, norm: Any) -> bool:
    # a negative scale turns the signs of integers, and the published grid ends at -8 and 7
    low, high = quant.code_bounds
    return quant.symmetric and (low == -high or bool((scale_and_shift(norm)[0] >= 0).all()))


def _why_not_ahead(flow: Flow, call: Call) -> str | None:
    if call.index in flow.watched:
        return f"a hook of {flow.watched[call.index]} sees what comes out of it"
    readers = flow.readers(call)
    if len(readers) != 1 or call.index in flow.outputs or not _is_weighted(readers[0]):
        return "what comes after it is no convolution alone"
    if _is_tied(flow, readers[0]):
        return f"{readers[0].path} after it shares its weights, masks them, or has a hook"
    reader: Any = readers[0].layer
    if len(flow.of(str(readers[0].path))) > 1 or not borderless(reader):
        return f"{readers[0].path} after it puts zeros at the borders"
    if any(_slot(call.layer, "output", kind) or _slot(reader, "input", kind) for kind in ("mask", "quant")):
        return f"there is a mask or a quantizer between it and {readers[0].path}"
    if _slot(reader, "weight", "quant") is not None:
        return f"the quantized weights of {readers[0].path} after it would change"
    if _result(call.layer) or _gathers(reader):
        return f"channels are gathered between it and {readers[0].path}"
    return None


def _is_weighted(call: Call) -> bool:
    # of channels at dimension 1: a linear layer takes those at the last
    return isinstance(call.layer, WEIGHTED) and adjustable(call.layer) and call.layout == (1,) == call.layouts[0]


def _is_tied(flow: Flow, call: Call) -> bool:
    layer: Any = call.layer
    others = [other.layer for other in flow.calls if other.layer is not None and other.layer is not layer]
    parameters = {id(parameter) for other in others for parameter in other.parameters(recurse=False)}
    shares = any(id(parameter) in parameters for parameter in layer.parameters(recurse=False))
    shares = shares or str(call.path) in flow.borrowed
    return shares or hooked(layer) or _slot(layer, "weight", "mask") is not None


def _slot(layer: Any, side: str, kind: str) -> Any:
    return layer.slot(side, kind) if isinstance(layer, Compressed) and side in layer.sides else None


def _gathers(layer: Any) -> bool:
    return isinstance(layer, Aligned) and any(isinstance(align, Align) for align in layer.arguments)


def _result(layer: Any) -> Any:
    return layer.result if isinstance(layer, Aligned) else None


@torch.no_grad()
def apply_fold(net: nn.Module, fold: Fold) -> None:
    """Fold one normalization, in place; an `nn.Identity` takes its path."""
    norm: Any = net.get_submodule(fold.norm)
    layer: Any = net.get_submodule(fold.weighted)
    scale, shift = (tensor.to(layer.weight) for tensor in scale_and_shift(norm))
    if layer.bias is None:
        nothing = layer.weight.new_zeros(output_count(layer))
        layer.bias = nn.Parameter(nothing, requires_grad=layer.weight.requires_grad)
    if fold.before:
        _scale_inputs(layer, scale, shift)
    else:
        _scale_outputs(layer, scale, shift)
        quant = _slot(norm, "output", "quant")
        if quant is not None:
            _hand_over(net, fold.weighted, quant)
    net.set_submodule(fold.norm, _identity(norm, fold))


def _scale_outputs(layer: Any, scale: Tensor, shift: Tensor) -> None:
    quant: FakeQuant | None = _slot(layer, "weight", "quant")
    if quant is not None:
        _scale_grid(layer, quant, scale)
    else:
        weight = rows(layer, layer.weight)
        layer.weight.copy_(rows(layer, weight * _along_rows(scale, weight)))
    layer.bias.copy_(layer.bias * scale + shift)


def _scale_grid(layer: CompressedWeight, quant: FakeQuant, scale: Tensor) -> None:
    """Scale the grid in place of the integers: these stay, but for their sign."""
    if quant.channels is None:
        quant = layer.weight_quant = quant.per_channel(len(scale))
    weight = rows(layer, layer.weight)
    if quant.active:
        weight = quant(weight)  # what rounding made of it, so that rounding it again makes the same
    size = torch.where(scale == 0, 1, scale.abs())
    quant.multiply(size)
    quant.range.copy_(torch.where(scale < 0, -quant.range.flip(0), quant.range))
    layer.weight.copy_(rows(layer, weight * _along_rows(scale, weight)))


def _scale_inputs(layer: Any, scale: Tensor, shift: Tensor) -> None:
    weight = rows(layer, layer.weight)
    groups = getattr(layer, "groups", 1)
    by_row = [each.view(groups, -1).repeat_interleave(weight.shape[0] // groups, 0) for each in (scale, shift)]
    scales, shifts = (each.view(*each.shape, *[1] * (weight.dim() - 2)) for each in by_row)
    layer.bias.add_((weight * shifts).flatten(1).sum(1))
    layer.weight.copy_(rows(layer, weight * scales))


def _along_rows(values: Tensor, weight: Tensor) -> Tensor:
    return values.view(-1, *[1] * (weight.dim() - 1))


def _hand_over(net: nn.Module, path: str, quant: FakeQuant) -> None:
    layer: Any = net.get_submodule(path)
    if not isinstance(layer, Compressed):
        kind: Any = HOSTS[bare(layer)]
        layer.__class__ = ALIGNED[kind] if isinstance(layer, Aligned) else kind
        layer.open_slots()
    layer.output_quant = in_place_of(layer, quant)


def _identity(norm: Any, fold: Fold) -> nn.Module:
    identity: Any = in_place_of(norm, nn.Identity())
    identity.fold = fold
    if hasattr(norm, "origin"):
        identity.origin = norm.origin
    if isinstance(norm, Aligned):
        identity.__class__ = ALIGNED[nn.Identity]
        identity.arguments, identity.result = norm.arguments, norm.result
    return identity


def fold_norms(net: nn.Module, flow: Flow) -> tuple[list[Fold], list[str]]:
    """Fold every normalization that can be folded, in place; returns what was folded, and why others were not."""
    folds, reasons = find_folds(flow)
    for fold in folds:
        apply_fold(net, fold)
    return folds, reasons
