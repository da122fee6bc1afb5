"""Channels that are still alive when every mask is taken as frozen; the report counts them."""

from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from qprune.flow import Call, Flow
from qprune.shrinking.analysis import follow
from qprune.shrinking.constants import Mode
from qprune.shrinking.layer_rules import Layer
from qprune.shrinking.rule import Rule
from qprune.shrinking.weights import input_count, output_count

# Every mask as it is, and zeros alone that no training can change: values of weights and shifts are not relied on.
BY_MASKS = Mode(settled=lambda mask: True, training=True)


@frozen(eq=False)
class Kept:
    """The channels of one call that matter."""

    # bool, one per input channel of a convolution or linear layer: it may be nonzero, and an output reads it
    inputs: Tensor
    outputs: Tensor  # bool, one per output channel: it may be nonzero, and somebody reads it


def kept_by_masks(net: nn.Module, flow: Flow) -> list[Kept]:
    """The kept channels of every call of ``flow``, in its order.

    They are what cutting during training would leave if every mask were frozen as it is, but for channels that torch's
    layers need besides: one where none matters, groups of one size. A layer that must stay whole keeps all.

    Example:
        >>> from qprune.flow import trace
        >>> from qprune.layers import PrunedConv2d
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), PrunedConv2d(4, 2, 1))
        >>> _ = net[2].input_mask.keep[1:].fill_(False)
        >>> [int(kept.outputs.sum()) for kept in kept_by_masks(net, trace(net, torch.zeros(1, 3, 5, 7)))]
        [1, 1, 2]
    """
    rules, _, needed = follow(net, flow, BY_MASKS)
    return [_kept(rule, needed[rule.call.index]) for rule in rules]


def _kept(rule: Rule, needed: Tensor) -> Kept:
    if isinstance(rule, Layer):
        outputs = rule.alive(needed)
        return Kept(rule.read_by(outputs), outputs)
    inputs, outputs = (torch.ones(count, dtype=torch.bool) for count in _sizes(rule.call))
    return Kept(inputs, outputs)


def _sizes(call: Call) -> tuple[int, int]:
    layer: Any = call.layer
    if isinstance(layer, (_ConvNd, nn.Linear)):
        return input_count(layer), output_count(layer)
    return call.counts[0], call.count
