"""Which channels still matter once the masks have spoken, followed through a whole network.

Forward: a channel that a mask drops is zero, and stays zero through activations, pooling, sums with other zeros and
concatenation.
Backward: a channel that nobody reads before a mask drops it need not be computed. What is not known counts as kept.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from qprune.flow import NORMS, Call, Flow, Shape
from qprune.layers import Aligned, ChannelMask
from qprune.zoo import Add

WEIGHTED = (_ConvNd, nn.Linear)
SUMS = ("add", "add_", "__add__", "__radd__", "__iadd__")
RESHAPES = ("Flatten", "flatten", "view", "reshape", "squeeze")


@frozen(eq=False)
class Kept:
    """The channels of one call that matter.

    Attributes:
        inputs: bool, one per input channel of a convolution or linear layer: it may be nonzero, and an output reads it.
        outputs: bool, one per output channel: it may be nonzero, and somebody reads it.
    """

    inputs: Tensor
    outputs: Tensor


def follow_masks(flow: Flow) -> list[Kept]:
    """The kept channels of every call of ``flow``, in its order.

    Example:
        >>> from qprune.flow import trace
        >>> from qprune.layers import PrunedConv2d
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), PrunedConv2d(4, 2, 1))
        >>> _ = net[2].input_mask.keep[1:].fill_(False)
        >>> [int(kept.outputs.sum()) for kept in follow_masks(trace(net, torch.zeros(1, 3, 5, 7)))]
        [1, 1, 2]
    """
    live = _forward(flow)
    needed = _demanded(flow)
    kept: list[Kept] = []
    for call in reversed(flow.calls):
        kept.append(_kept(call, live, needed[call.index]))
        for maker, wanted in zip(call.inputs, _wanted(call, kept[-1]), strict=True):
            if maker >= 0:
                fits = wanted.numel() == needed[maker].numel()
                needed[maker] |= wanted if fits else torch.ones_like(needed[maker])
    return kept[::-1]


def along_channels(call: Call) -> bool:
    """Whether the layer of ``call`` has its channels at axis 1 of a batch, where this module looks for them.

    An `Aligned` layer has other channels than the tensors around it, and was cut to what matters already.
    """
    rank = len(call.shape)
    if _is_aligned(call.layer):
        return False
    if isinstance(call.layer, _ConvNd):
        return rank == len(call.layer.kernel_size) + 2
    return rank == 2 if isinstance(call.layer, nn.Linear) else rank > 1


def _is_aligned(layer: Any) -> bool:
    return isinstance(layer, Aligned)


def sizes(layer: nn.Module) -> tuple[int, int]:
    """Input and output channels of a convolution or linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels  # type: ignore[return-value]


def reshapes(call: Call) -> bool:
    """Whether it flattens ``(N, C, ...)`` to ``(N, C * ...)``."""
    if call.name not in RESHAPES or len(call.shapes[0]) < 2 or len(call.shape) != 2:
        return False
    return call.shape == (call.shapes[0][0], prod(call.shapes[0][1:]))


def _forward(flow: Flow) -> list[Tensor]:
    # per call: the output channels that are not known to be zero
    live: list[Tensor] = []
    for call in flow.calls:
        alive = (
            _live_outputs(call, live) if isinstance(call.layer, WEIGHTED) else _nonzero(call, _arguments(call, live))
        )
        live.append(_masked(alive, call.layer, "output") if along_channels(call) else _all(call.shape))
    return live


def _demanded(flow: Flow) -> list[Tensor]:
    # The network's outputs are read. So is, for all we know, what no call on record reads: y[:, :3] = x leaves none.
    read = {maker for call in flow.calls for maker in call.inputs} - set(flow.outputs)
    return [_all(call.shape) if call.index not in read else ~_all(call.shape) for call in flow.calls]


def _kept(call: Call, live: list[Tensor], needed: Tensor) -> Kept:
    if not isinstance(call.layer, WEIGHTED):
        outputs = needed & live[call.index]
        return Kept(outputs, outputs)
    outputs = _live_outputs(call, live)
    outputs = outputs & needed if along_channels(call) else outputs
    groups = getattr(call.layer, "groups", 1)
    inputs = _live_inputs(call, live)
    return Kept(inputs & _by_group(outputs, groups, inputs.numel()), outputs)


def _live_inputs(call: Call, live: list[Tensor]) -> Tensor:
    channels = sizes(call.layer)[0]  # type: ignore[arg-type]
    known = along_channels(call) and call.shapes[0][1] == channels
    alive = _arguments(call, live)[0] if known else torch.ones(channels, dtype=torch.bool)
    return _masked(alive, call.layer, "input")


def _live_outputs(call: Call, live: list[Tensor]) -> Tensor:
    layer = call.layer
    channels = sizes(layer)[1]  # type: ignore[arg-type]
    alive = _by_group(_live_inputs(call, live), getattr(layer, "groups", 1), channels)
    if layer.bias is not None:  # type: ignore[union-attr]
        alive = torch.ones_like(alive)
    return _masked(_masked(alive, layer, "weight"), layer, "output")


def _by_group(channels: Tensor, groups: int, count: int) -> Tensor:
    # which of `count` channels on the other side share a group with one of these
    return channels.view(groups, -1).any(1).repeat_interleave(count // groups)


def _masked(alive: Tensor, layer: nn.Module | None, side: str) -> Tensor:
    mask = getattr(layer, f"{side}_mask", None)
    if not isinstance(mask, ChannelMask) or mask.channels != alive.numel():
        return alive
    return alive & mask.keep.cpu()


def _nonzero(call: Call, arguments: list[Tensor]) -> Tensor:
    if call.concatenates():
        return torch.cat(arguments)
    if _sums(call):
        return torch.stack(arguments).any(0)
    if reshapes(call):
        return arguments[0].repeat_interleave(call.shape[1] // arguments[0].numel())
    return arguments[0] if _channelwise(call) and not _shifts(call) else _all(call.shape)


def _wanted(call: Call, kept: Kept) -> Iterator[Tensor]:
    # for each argument, the channels that are read
    if _is_aligned(call.layer):
        yield from map(_all, call.shapes)
        return
    if call.concatenates():
        yield from kept.outputs.split([shape[1] for shape in call.shapes])
        return
    for slot, shape in enumerate(call.shapes):
        if _sums(call):
            yield kept.outputs
        else:
            yield _first_wanted(call, kept) if slot == 0 else _all(shape)


def _first_wanted(call: Call, kept: Kept) -> Tensor:
    if isinstance(call.layer, WEIGHTED):
        return kept.inputs if along_channels(call) else _all(call.shapes[0])
    if reshapes(call):
        return kept.outputs.view(call.shapes[0][1], -1).any(1)
    return kept.outputs if _channelwise(call) else _all(call.shapes[0])


def _sums(call: Call) -> bool:
    named = isinstance(call.layer, Add) or (call.layer is None and call.name in SUMS)
    return named and len(call.shapes) > 1 and all(shape == call.shape for shape in call.shapes)


def _channelwise(call: Call) -> bool:
    # each output channel comes from the input channel of the same number alone
    before, after = call.shapes[0], call.shape
    if min(len(before), len(after)) < 2 or before[1] != after[1]:
        return False
    # an average over height and width, told from one over channels by their sizes
    averages = call.name == "mean" and prod(after[2:]) == 1 and before[1] not in before[2:]
    return averages or isinstance(call.layer, NORMS) or call.passes()


def _shifts(call: Call) -> bool:
    layer = call.layer  # a normalization makes something else of a zero channel, unless it is only this channel's own
    plain = isinstance(layer, nn.InstanceNorm2d) and not layer.affine and not layer.track_running_stats
    return isinstance(layer, NORMS) and not plain


def _arguments(call: Call, live: list[Tensor]) -> list[Tensor]:
    found = [live[maker] if maker >= 0 else _all(shape) for maker, shape in zip(call.inputs, call.shapes, strict=True)]
    return [
        alive if alive.numel() == _channels(shape) else _all(shape)
        for alive, shape in zip(found, call.shapes, strict=True)
    ]


def _all(shape: Shape) -> Tensor:
    return torch.ones(_channels(shape), dtype=torch.bool)


def _channels(shape: Shape) -> int:
    return shape[1] if len(shape) > 1 else 1
