"""Masks of channels that a convolution of groups reads or makes: as many are kept of each of its groups.

The groups of a convolution must be of equal size. Where a mask keeps three channels of one group and five of another,
five of both stay: those that were dropped are 0, and computed.
"""

import math
from collections.abc import Iterator

from torch import nn

from qprune.coupling import Streams, streams
from qprune.flow import Flow
from qprune.layers import sites


def divide_masks(net: nn.Module, flow: Flow) -> None:
    """Let masks in front of and behind convolutions of groups choose in each group by itself, in place.

    Example:
        >>> conv = qprune.layers.PrunedConv2d(6, 6, 3, groups=3, at="output")
        >>> divide_masks(conv, qprune.flow.trace(conv, torch.zeros(1, 6, 5, 7)))
        >>> conv.output_mask.groups
        3
    """
    if not any(_of_groups(net)):
        return
    found = streams(net, flow)
    groups = stream_groups(net, flow, found)
    for site in sites(net):
        stream = None if site.mask is None else found.of_site(flow, site.path, site.side)
        if site.mask is not None and stream in groups and site.mask.channels % groups[stream] == 0:
            site.mask.groups = groups[stream]


def stream_groups(net: nn.Module, flow: Flow, found: Streams) -> dict[int, int]:
    """Into how many equal groups the channels of a stream fall, where a convolution wants them to.

    Of a depthwise convolution each channel is a group, which goes as a whole: it wants nothing.
    """
    groups: dict[int, int] = {}
    for path, layer in _of_groups(net):
        for call in flow.of(path)[:1]:
            ends = ((call.inputs[0], layer.in_channels), (call.index, layer.out_channels))
            for index, channels in ends:
                if index >= 0 and layer.groups < channels:
                    stream = found.of_call[index]
                    shared = math.lcm(groups.get(stream, 1), layer.groups)
                    groups[stream] = shared if shared < channels else layer.groups
    return groups


def _of_groups(net: nn.Module) -> Iterator[tuple[str, nn.modules.conv._ConvNd]]:
    for path, layer in net.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups < max(layer.in_channels, layer.out_channels):
            yield path, layer
