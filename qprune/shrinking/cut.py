"""Cutting layers: the same objects with fewer channels, and what joins them to their neighbours."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from qprune.host import on_device
from qprune.layers import ALIGNED, HOSTS, Align, Aligned, Compressed, CompressedWeight, bare, cut_parameter, in_place_of
from qprune.shrinking.weights import TRANSPOSED, WEIGHTED, input_count, output_count, rows

Joint = tuple[tuple[int, float], ...]  # for each channel the place of the one it is, or -1 and a constant
Take = Callable[[Tensor], Tensor]  # from a tensor of a parameter's old shape to what stays of it


@frozen
class Cut:
    """What of one layer stays, and how it is joined to its neighbours."""

    inputs: tuple[tuple[int, ...], ...]  # the input channels that stay, for each argument
    outputs: tuple[int, ...]  # the output channels that stay
    arguments: tuple[Joint | None, ...]  # how each argument becomes the layer's input; None where it is that
    result: Joint | None  # how the layer's output becomes its result; None where it is that
    # by the sides whose masks go what these kept: what they dropped does not exist any more
    masks: Mapping[str, tuple[bool, ...]] = {}
    # what constant inputs that go add to the output channels that stay; None if nothing
    added_bias: tuple[float, ...] | None = None
    axis: int = 1  # the dimension along which channels are gathered and scattered


def cut_of(layer: nn.Module, inputs: tuple[int, ...], outputs: int, axis: int = 1) -> Cut:
    """The cut that leaves a layer with so many channels as it is."""
    arguments: tuple[Joint | None, ...] = tuple(None for _ in inputs)
    result = None
    if isinstance(layer, Aligned):
        arguments, result = tuple(_joint(align) for align in layer.arguments), _joint(layer.result)
    whole = tuple(tuple(range(count)) for count in inputs)
    return Cut(whole, tuple(range(outputs)), arguments, result, axis=axis)


def _joint(align: Any) -> Joint | None:
    return tuple(zip(align.index, align.fill, strict=True)) if isinstance(align, Align) else None


@torch.no_grad()
def apply_cuts(net: nn.Module, cuts: Mapping[str, Cut]) -> dict[nn.Parameter, Take]:
    """Cut the layers of a network, in place: parameters stay the same objects, with fewer entries.

    Gives for every parameter that got smaller what takes the entries that stay from a tensor of its old shape: a moment
    of the optimizer, an average.
    """
    taken: dict[nn.Parameter, Take] = {}
    for path, cut in cuts.items():
        layer: Any = net.get_submodule(path)
        takes = _takes(layer, cut)
        masks = {side: keep for side, keep in cut.masks.items() if layer.slot(side, "mask") is not None}
        taken |= _cut_compressors(layer, cut)
        for name, take in takes.items():
            tensor = getattr(layer, name)
            if isinstance(tensor, nn.Parameter):
                cut_parameter(tensor, take)
                taken[tensor] = take
            else:
                setattr(layer, name, take(tensor))
        _resize(layer, cut)
        _remember(layer, cut, masks)
        _add_bias(layer, cut)
        _rejoin(net, layer, cut)
    return taken


def _takes(layer: Any, cut: Cut) -> dict[str, Take]:
    outputs = on_device(cut.outputs, next((p.device for p in layer.parameters(recurse=False)), None))
    takes: dict[str, Take] = {}
    if isinstance(layer, WEIGHTED):
        takes["weight"] = _weight_take(layer, cut)
        names: tuple[str, ...] = ("bias",)
    else:
        names = ("weight", "bias", "running_mean", "running_var")
    for name in names:
        if isinstance(getattr(layer, name, None), Tensor) and not _is_shared(layer):
            takes[name] = lambda tensor: tensor[outputs]
    return takes


def _is_shared(layer: Any) -> bool:
    # one number for all channels, or all channels for one number
    return isinstance(layer, nn.LayerNorm) or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1)


def _weight_take(layer: Any, cut: Cut) -> Take:
    groups = getattr(layer, "groups", 1)
    outputs, inputs = torch.tensor(cut.outputs), torch.tensor(cut.inputs[0])
    if groups == 1:
        chosen = ((1, outputs), (0, inputs)) if isinstance(layer, TRANSPOSED) else ((0, outputs), (1, inputs))
        return lambda w: _laid_out(reduce(_selected, chosen, w), w)
    per_out = output_count(layer) // groups
    stay = sorted({int(o) // per_out for o in outputs})
    columns = inputs.remainder(input_count(layer) // groups).view(
        len(stay), -1
    )  # the inputs within each group that stays
    columns = columns.repeat_interleave(len(outputs) // len(stay), 0)

    def take(weight: Tensor) -> Tensor:
        chosen = (each.to(weight.device, non_blocking=True) for each in (outputs[:, None], columns))
        taken = rows(layer, weight, groups)[tuple(chosen)]
        return _laid_out(rows(layer, taken, len(stay)), weight)

    return take


def _selected(tensor: Tensor, chosen: tuple[int, Tensor]) -> Tensor:
    axis, channels = chosen
    return tensor.index_select(axis, channels.to(tensor.device, non_blocking=True))


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    # channels side by side, where they were: convolutions of that layout are what makes small networks fast
    beside = like.dim() == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last)
    return tensor.contiguous(memory_format=torch.channels_last if beside else torch.contiguous_format)


def _resize(layer: Any, cut: Cut) -> None:
    count = len(cut.outputs)
    if isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = len(cut.inputs[0]), count
    elif isinstance(layer, WEIGHTED):
        if layer.groups > 1:
            per_group = layer.out_channels // layer.groups
            layer.groups = len({output // per_group for output in cut.outputs})
        layer.in_channels, layer.out_channels = len(cut.inputs[0]), count
    elif isinstance(layer, nn.GroupNorm):
        layer.num_groups = count // (layer.num_channels // layer.num_groups)
        layer.num_channels = count
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = count if layer.num_parameters > 1 else 1
    elif hasattr(layer, "num_features"):
        layer.num_features = count


def _add_bias(layer: Any, cut: Cut) -> None:
    if cut.added_bias is None:
        return
    added = torch.tensor(cut.added_bias).to(layer.weight, non_blocking=True)
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(added), requires_grad=layer.weight.requires_grad)
    if isinstance(layer, CompressedWeight) and layer.bias_quant is not None:
        layer.bias.copy_(layer.bias_quant(layer.bias))  # before: rounding afterwards is another one at halves
    layer.bias.add_(added)


def _cut_compressors(layer: Any, cut: Cut) -> dict[nn.Parameter, Take]:
    taken: dict[nn.Parameter, Take] = {}
    for side in layer.sides if isinstance(layer, Compressed) else ():
        if side in cut.masks:
            setattr(layer, f"{side}_mask", None)
        at_input = side == "input" and isinstance(layer, CompressedWeight)
        stay = torch.tensor(cut.inputs[0] if at_input else cut.outputs)
        for kind in ("mask", "quant"):
            part = layer.slot(side, kind)
            if part is not None:
                part.select(stay)
                taken |= dict.fromkeys((each for each in part.parameters() if each.dim()), _take_of(stay))
    if isinstance(layer, CompressedWeight) and layer.bias_quant is not None:
        layer.bias_quant.select(torch.tensor(cut.outputs))
    return taken


def _take_of(stay: Tensor) -> Take:
    return lambda tensor: tensor[stay.to(tensor.device, non_blocking=True)]


def _rejoin(net: nn.Module, layer: nn.Module, cut: Cut) -> None:
    """Give the layer the class that it needs: with alignments or without, with compressors or plain."""
    kind = bare(layer)
    if isinstance(layer, Aligned):
        del layer.arguments, layer.result
    if issubclass(kind, Compressed) and not any(
        isinstance(layer, Compressed) and layer.slot(side, what) for side in kind.sides for what in ("mask", "quant")
    ):
        layer.close_slots()  # type: ignore[operator]
        kind = next(plain for plain, host in HOSTS.items() if host is kind)
    if all(joint is None for joint in (*cut.arguments, cut.result)):
        layer.__class__ = kind
        return
    layer.__class__ = ALIGNED[kind]
    aligns = [
        None if joint is None else in_place_of(layer, _align(joint, cut.axis), net)
        for joint in (*cut.arguments, cut.result)
    ]
    assert isinstance(layer, Aligned)
    layer.align(aligns[:-1], aligns[-1])


def _align(joint: Joint, axis: int) -> Align:
    index, fill = zip(*joint, strict=True) if joint else ((), ())
    return Align(index, fill, axis)


@frozen
class Origin:
    """Where the channels of a cut layer were before any cut."""

    inputs: tuple[tuple[int, ...], ...]  # for each argument, the numbers of the input channels that are left
    outputs: tuple[int, ...]  # those of the output channels
    masks: Mapping[str, tuple[bool, ...]]  # what the masks that went kept, by their side
    bias: bool = False  # whether the layer got a bias that it did not have
    axis: int = 1  # the dimension along which its tensors' channels lie


def _remember(layer: Any, cut: Cut, masks: Mapping[str, tuple[bool, ...]]) -> None:
    before: Origin | None = getattr(layer, "origin", None)
    inputs, outputs = cut.inputs, cut.outputs
    bias = cut.added_bias is not None and layer.bias is None
    if before is not None:
        pairs = zip(before.inputs, cut.inputs, strict=True)
        inputs = tuple(tuple(old[index] for index in new) for old, new in pairs)
        outputs = tuple(before.outputs[index] for index in cut.outputs)
        masks, bias = {**before.masks, **masks}, before.bias or bias
    layer.origin = Origin(inputs, outputs, masks, bias, cut.axis)
