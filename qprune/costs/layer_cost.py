"""The cost ledger: one line per layer, dense and by the masks."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil, prod
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

from qprune.costs.bits import FLOAT, WEIGHTED, arriving_bits, slot_bits, stored_bits
from qprune.flow import Call, Flow, Shape
from qprune.layers import Aligned, Compressor
from qprune.shrinking import Kept, kept_by_masks
from qprune.shrinking.weights import input_count, output_count

NORMALIZATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@frozen
class LayerCost:
    """The cost of one layer for one image. ``kept`` counts are by the masks, the others those of the dense layer."""

    path: str  # empty if the network is the layer
    type: str  # class name
    output_shape: Shape | None = None  # with a batch of 1; None if it never ran on its own
    parameters: int = 0  # elements of its own; those shared with an earlier layer count there
    parameters_kept: int = 0  # of these, the ones that kept channels use
    channels_in: int | None = None  # None for layers other than convolution, linear and channel normalization
    channels_in_kept: int | None = None  # those that may be nonzero and that a kept output reads
    channels_out: int | None = None  # likewise
    channels_out_kept: int | None = None  # those that may be nonzero and that somebody reads before a mask drops them
    weight_bits: int | None = None  # 32 for float; None for layers other than convolution and linear
    activation_bits: int | None = None  # of the input tensor, likewise
    reads_image: bool = False  # whether the input tensor is the network's own
    macs: int = 0  # multiply-accumulates
    macs_kept: int = 0  # those between kept channels
    bit_operations: int = 0  # ``macs_kept * weight_bits * activation_bits``
    packed_bytes: int = 0  # kept weights at their bits, other kept parameters and the scales of the weight in float32
    features: int = 0  # output elements of convolutions, linear layers and normalizations
    features_kept: int = 0  # of these, the ones in kept channels
    # kept output elements of convolutions and linear layers at the bits at which they are stored
    feature_bytes: int = 0


@frozen(eq=False)
class _Use:
    # one call of a layer, with what was found out about it
    call: Call
    kept: Kept
    arriving: int
    stored: int


@frozen(eq=False)
class _Layer:
    path: str
    module: nn.Module
    uses: tuple[_Use, ...]
    own: tuple[tuple[str, nn.Parameter], ...]  # parameters that no earlier layer has
    shared: frozenset[int] = field(factory=frozenset)  # ids of the parameters that several layers hold


def layer_costs(net: nn.Module, flow: Flow) -> tuple[LayerCost, ...]:
    """One row per convolution, linear layer, normalization and other module with parameters, in registration order.

    The flow is that of one example, batch 1.

    Example:
        >>> net = nn.Conv2d(3, 4, 3)
        >>> layer_costs(net, trace(net, torch.zeros(1, 3, 5, 7)))[0].macs
        1620
    """
    layers = _layers(net, flow)
    return tuple(_weighted(layer) if isinstance(layer.module, WEIGHTED) else _other(layer) for layer in layers)


def _layers(net: nn.Module, flow: Flow) -> Iterator[_Layer]:
    uses = _uses(net, flow)
    modules = list(net.named_modules())
    holders = Counter(id(p) for _, module in modules for p in module.parameters(recurse=False))
    shared, seen = frozenset(key for key, count in holders.items() if count > 1), set[int]()
    for path, module in modules:
        if isinstance(module, Compressor):
            continue  # a learned step counts as a measured one does
        held = list(module.named_parameters(recurse=False))
        if held or isinstance(module, (*WEIGHTED, *NORMALIZATIONS)):
            own = tuple((name, p) for name, p in held if id(p) not in seen)
            seen.update(id(p) for _, p in held)
            yield _Layer(path, module, tuple(uses.get(path, ())), own, shared)


def _uses(net: nn.Module, flow: Flow) -> dict[str, list[_Use]]:
    table: dict[str, list[_Use]] = {}
    for use in map(_Use, flow.calls, kept_by_masks(net, flow), arriving_bits(flow), stored_bits(flow)):
        if use.call.path is not None:
            table.setdefault(use.call.path, []).append(use)
    return table


def _weighted(layer: _Layer) -> LayerCost:
    module = layer.module
    inputs, outputs = _union(layer, "inputs", input_count(module)), _union(layer, "outputs", output_count(module))
    sizes_kept = {"weight": connections(module, inputs, outputs), "bias": int(outputs.sum())}
    weight_bits = slot_bits(module, "weight") or FLOAT
    bit_operations = sum(_macs(layer, use, kept=True) * weight_bits * use.arriving for use in layer.uses)
    return LayerCost(
        **_common(layer, sizes_kept),
        **_channels(inputs, outputs),
        weight_bits=weight_bits,
        activation_bits=max((use.arriving for use in layer.uses), default=FLOAT),
        reads_image=any(use.call.inputs[0] < 0 for use in layer.uses),
        macs=sum(_macs(layer, use, kept=False) for use in layer.uses),
        macs_kept=sum(_macs(layer, use, kept=True) for use in layer.uses),
        bit_operations=bit_operations,
        packed_bytes=_packed(layer, sizes_kept, weight_bits),
        feature_bytes=sum(ceil(_features(use, kept=True) * use.stored / 8) for use in layer.uses),
    )


def _other(layer: _Layer) -> LayerCost:
    channels = getattr(layer.module, "num_features", None)
    if not isinstance(layer.module, _NormBase) or not isinstance(channels, int):
        return LayerCost(**_common(layer, {}), packed_bytes=_packed(layer, {}, FLOAT))
    kept = _union(layer, "outputs", channels)
    sizes_kept = dict.fromkeys(("weight", "bias"), int(kept.sum()))
    return LayerCost(
        **_common(layer, sizes_kept), **_channels(kept, kept), packed_bytes=_packed(layer, sizes_kept, FLOAT)
    )


def _common(layer: _Layer, sizes_kept: dict[str, int]) -> dict[str, Any]:
    counted = layer.uses if isinstance(layer.module, (*WEIGHTED, *NORMALIZATIONS)) else ()
    return {
        "path": layer.path,
        "type": type(layer.module).__name__,
        "output_shape": layer.uses[0].call.shape if layer.uses else None,
        "parameters": sum(p.numel() for _, p in layer.own),
        "parameters_kept": sum(_own_kept(layer, sizes_kept).values()),
        "features": sum(_features(use, kept=False) for use in counted),
        "features_kept": sum(_features(use, kept=True) for use in counted),
    }


def _channels(inputs: Tensor, outputs: Tensor) -> dict[str, Any]:
    return {
        "channels_in": inputs.numel(),
        "channels_in_kept": int(inputs.sum()),
        "channels_out": outputs.numel(),
        "channels_out_kept": int(outputs.sum()),
    }


def _own_kept(layer: _Layer, sizes_kept: dict[str, int]) -> dict[str, int]:
    # a parameter that several layers hold may be needed whole by another one
    return {name: p.numel() if id(p) in layer.shared else sizes_kept.get(name, p.numel()) for name, p in layer.own}


def _packed(layer: _Layer, sizes_kept: dict[str, int], weight_bits: int) -> int:
    kept = _own_kept(layer, sizes_kept)
    weights = ceil(kept.get("weight", 0) * weight_bits / 8)
    others = sum(count for name, count in kept.items() if name != "weight")
    return weights + 4 * others + scale_bytes(layer.module, sizes_kept.get("bias", 0))


def scale_bytes(module: nn.Module, channels: int) -> int:
    """Bytes of the scales of a layer's weights, of which so many channels are left.

    Example:
        >>> scale_bytes(nn.Conv2d(2, 3, 5), 3)
        0
    """
    if slot_bits(module, "weight") is None:
        return 0
    quant: Any = module.weight_quant
    # a float32 scale, and where zero is no fixed code one byte that says which code it is
    return (4 if quant.symmetric else 5) * (1 if quant.channels is None else channels)


def _union(layer: _Layer, side: str, channels: int) -> Tensor:
    found = [getattr(use.kept, side) for use in layer.uses]
    fitting = [kept for kept in found if kept.numel() == channels]
    return torch.stack(fitting).any(0) if fitting else torch.ones(channels, dtype=torch.bool)


def connections(module: nn.Module, inputs: Tensor, outputs: Tensor) -> int:
    """Weights of a convolution or linear layer between kept channels: within each group every output reads every input.

    Both are bool, one per channel.

    Example:
        >>> connections(nn.Conv2d(2, 3, 5), torch.ones(2) > 0, torch.ones(3) > 0)
        150
    """
    groups, kernel = getattr(module, "groups", 1), prod(getattr(module, "kernel_size", ()))
    pairs = inputs.view(groups, -1).sum(1) * outputs.view(groups, -1).sum(1)
    return int(pairs.sum()) * kernel


def _macs(layer: _Layer, use: _Use, *, kept: bool) -> int:
    inputs, outputs = use.kept.inputs, use.kept.outputs
    if not kept:
        inputs, outputs = torch.ones_like(inputs), torch.ones_like(outputs)
    return connections(layer.module, inputs, outputs) * positions(layer.module, use.call)


def positions(module: nn.Module, call: Call) -> int:
    """The number of times each weight is used: once per output position, per input position if the layer is transposed.

    Example:
        >>> net = nn.Conv2d(2, 3, 5)
        >>> positions(net, trace(net, torch.zeros(1, 2, 7, 9)).calls[0])
        15
    """
    shape = call.shapes[0] if isinstance(module, _ConvTransposeNd) else call.shape
    # an aligned layer has other channels than the tensor, so these are counted there
    return prod(shape) // shape[-1 - len(getattr(module, "kernel_size", ()))]


def _features(use: _Use, *, kept: bool) -> int:
    total = prod(use.call.shape)
    if not kept or isinstance(use.call.layer, Aligned):
        return total
    return total // use.kept.outputs.numel() * int(use.kept.outputs.sum())


def summed(rows: Sequence[LayerCost], name: str) -> int:
    """The sum of one of the costs over layers."""
    return sum(getattr(row, name) for row in rows)


def uncounted(flow: Flow, rows: Sequence[LayerCost]) -> Iterator[str]:
    """Sentences about multiplications that the rows leave out."""
    functions = ("conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear", "matmul", "__matmul__", "bmm", "einsum",
                 "scaled_dot_product_attention", "multi_head_attention_forward")  # fmt: skip
    for name, count in Counter(
        call.name for call in flow.calls if call.layer is None and call.name in functions
    ).items():
        yield f"Not counted in the MACs: {count} x {name} outside of layers."
    for row in rows:
        if row.weight_bits is not None and row.output_shape is None:
            yield f"Not counted in the MACs: {row.path}, which never ran as a layer of its own."
