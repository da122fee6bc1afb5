"""Channels that hold one and the same number everywhere: how layers and functions pass them on.

A tensor's channels are described by a float vector, one entry per channel: the number that the channel holds at every
position of every image, or NaN where it is not known to be constant. A dropped channel is the constant 0.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from qprune.flow import Call, Given, Layout, Shape
from qprune.host import on_host
from qprune.layers import ChannelMask, FakeQuant


@frozen(eq=False)
class Mode:
    """What may be relied on."""

    settled: Callable[[ChannelMask], bool]  # whether a mask never changes again
    # whether the network will be trained on. Then zeros alone count, and only those that no training can change; else
    # everything that its present values say
    training: bool
    # the picture that is looked at: what the masks of a network that never change again keep, on the host
    keeps: Mapping[ChannelMask, Tensor] = {}

    def looking_at(self, net: nn.Module) -> "Mode":
        """The same, with a picture of a network's masks, which come from its device in one transfer."""
        masks = [part for part in net.modules() if isinstance(part, ChannelMask) and self.settled(part)]
        return evolve(self, keeps=dict(zip(masks, on_host([mask.keep for mask in masks]), strict=True)))

    def kept(self, mask: ChannelMask | None) -> Tensor | None:
        """What a mask keeps for good; None if there is none, or it may still change."""
        return None if mask is None else self.keeps.get(mask)


def unknown(count: int) -> Tensor:
    """Channels that may hold anything."""
    return torch.full((count,), torch.nan)


def as_image(values: Tensor, shape: Shape, layout: Layout) -> Tensor:
    """One pixel with these channels, of as many dimensions as ``shape``."""
    if len(layout) == 1:  # a layer's own channels may be others than those of its tensors
        return values.view([-1 if dim in layout else 1 for dim in range(len(shape))])
    return values.view([side if dim in layout else 1 for dim, side in enumerate(shape)])


def compressed(
    values: Tensor, shape: Shape, layout: Layout, mask: ChannelMask | None, quant: FakeQuant | None, mode: Mode
) -> Tensor:
    """The channels behind a mask and a quantizer."""
    keep = mode.kept(mask)
    if keep is not None:
        values = torch.where(keep, values, 0)
    if quant is None:
        return values
    if not mode.training:
        return _quantized(as_image(values, shape, layout), quant).flatten()
    stays = keep is not None or quant.arithmetic.origin(quant.range, quant.symmetric) is None  # a 0 in training
    return values if stays else unknown(len(values))


@torch.no_grad()
def _quantized(values: Tensor, quant: FakeQuant) -> Tensor:
    trains, quant.training = quant.training, False
    try:
        result = quant(values.nan_to_num().to(quant.scale.device)).cpu()
    finally:
        quant.training = trains
    return torch.where(values.isnan(), values, result)


def zeros_alone(values: Tensor) -> Tensor:
    """Forget every constant but 0."""
    return torch.where(values == 0, values, torch.nan)


@torch.no_grad()
def replay(call: Call, values: list[Tensor]) -> Tensor | None:
    """Run a function on one pixel with these channels; None if that gives another number of channels than it should."""
    images = zip(values, call.shapes, call.layouts, strict=True)
    given = iter([as_image(each.clone(), shape, layout) for each, shape, layout in images])

    def fill(argument: Any) -> Any:
        if isinstance(argument, Given):
            if argument.maker is None:
                raise ValueError("a parameter or a buffer, whose values are not at hand")
            return next(given)
        if isinstance(argument, torch.device):  # the trace's own
            return torch.device("cpu")
        return type(argument)(map(fill, argument)) if type(argument) in (list, tuple) else argument

    assert call.function is not None
    try:
        results = call.function(*map(fill, call.arguments), **{key: fill(a) for key, a in call.options.items()})
        result = results if isinstance(results, Tensor) else results[call.part]
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None
    return result.flatten().float() if result.numel() == call.count else None


def flattened(call: Call) -> bool:
    """Whether it turns ``(N, C, ...)`` into ``(N, C * ...)``, whatever C is."""
    if len(call.shape) != 2 or not call.shapes or len(call.shapes[0]) < 2:
        return False
    if call.shape != (call.shapes[0][0], prod(call.shapes[0][1:])):
        return False
    if isinstance(call.layer, nn.Flatten) or call.name == "flatten":
        return True
    sizes: Any = call.arguments[1:]
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return call.name in ("view", "reshape") and len(sizes) == 2 and sizes[1] == -1
