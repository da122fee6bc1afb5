"""Rules of layers that treat each channel alone, add or concatenate: they can be cut, and can gather and scatter."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from qprune.flow import Call
from qprune.layers import CHANNELWISE, Align, Aligned, ChannelMask, Compressed
from qprune.shrinking.constants import Mode, as_image, compressed, unknown, zeros_alone
from qprune.shrinking.rule import Rule

# What is the same at every position stays so; no values are put at the borders, or minus infinity.
CONSTANT_KEEPING = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Upsample, nn.ReflectionPad1d,
    nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity,
)  # fmt: skip
# Of these it is only known that zeros stay zeros.
ZERO_KEEPING = (
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.AvgPool1d, nn.AvgPool3d, nn.PReLU, nn.LPPool2d,
)  # fmt: skip


class Layer(Rule, ABC):
    """A layer that can be cut. Where it is `Aligned` already, its own channels are others than those of its tensors.

    It is ``open`` while one of its masks may still change.
    """

    movable = True

    def __init__(self, call: Call, mode: Mode) -> None:
        super().__init__(call, mode)
        self.reason = None
        self.layer: Any = call.layer
        self.entered: list[Tensor] = []
        self.open = any(self._open(side) for side in self._sides())

    def entering(self, values: list[Tensor]) -> list[Tensor]:
        """The arguments as the layer itself gets them, after alignment."""
        if not isinstance(self.layer, Aligned):
            return values
        aligns = self.layer.arguments
        return [_aligned(v, a) if isinstance(a, Align) else v for v, a in zip(values, aligns, strict=True)]

    def values(self, values: list[Tensor]) -> Tensor:
        """The result of the layer itself, aligned."""
        self.entered = self.entering(values)
        self.made = self.own(self.entered)
        if self.mode.training:
            self.made = zeros_alone(self.made)
        result = self.layer.result if isinstance(self.layer, Aligned) else None
        return self.made if result is None else _aligned(self.made, result)

    @abstractmethod
    def own(self, values: list[Tensor]) -> Tensor:
        """The channels that the layer itself makes."""

    def kept(self, needed: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The layer's own output and input channels that stay, given those of its result that are read."""
        outputs = self.alive(needed)
        return self.inputs_for(outputs) if outputs.any() else self.least()

    def idle(self, needed: Tensor) -> bool:
        """Whether nothing that the layer itself computes is read, now or when its masks have changed."""
        return not self.alive(needed).any() and not self.open

    def alive(self, needed: Tensor) -> Tensor:
        """The layer's own output channels that are read and are no constants."""
        outputs = self._own_needed(needed) & self.made.isnan()
        return torch.ones_like(outputs) if self._open("output") else outputs

    def read_by(self, outputs: Tensor) -> Tensor:
        """The input channels (of the first argument) that these outputs read, without constants."""
        return outputs

    def least(self) -> tuple[Tensor, list[Tensor]]:
        """The channels that stay where nothing is read, since torch has no layers without channels."""
        return self.inputs_for(at_least_one(torch.zeros(len(self.made), dtype=torch.bool)))

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output channels that stay, with those that cannot go alone, and the input channels that they take."""
        return outputs, [outputs for _ in self.call.shapes]

    def _own_needed(self, needed: Tensor) -> Tensor:
        result = self.layer.result if isinstance(self.layer, Aligned) else None
        if result is None:
            return needed
        own = torch.zeros(len(self.made), dtype=torch.bool)
        index = _index(result)
        own[index[needed & (index >= 0)]] = True
        return own

    def wanted(self, needed: Tensor) -> list[Tensor]:
        """The channels behind the inputs that stay, but for constants, which a layer can make itself."""
        if self.idle(needed):
            return [torch.zeros(count, dtype=torch.bool) for count in self.call.counts]
        _, inputs = self.kept(needed)
        return [self._read(slot, stay) for slot, stay in enumerate(inputs)]

    def _read(self, slot: int, stay: Tensor) -> Tensor:
        wanted = torch.zeros(self.call.counts[slot], dtype=torch.bool)
        wanted[self.sources(slot)[stay & self.entered[slot].isnan()]] = True
        return wanted

    def sources(self, slot: int) -> Tensor:
        """For each input channel of the layer itself the argument's channel; -1 for a constant."""
        align = self.layer.arguments[slot] if isinstance(self.layer, Aligned) else None
        if isinstance(align, Align):
            return _index(align)
        return torch.arange(self.call.counts[slot])

    def targets(self) -> Tensor:
        """For each channel of the result the output channel of the layer itself; -1 for a constant."""
        result = self.layer.result if isinstance(self.layer, Aligned) else None
        return torch.arange(self.call.count) if result is None else _index(result)

    def slot(self, side: str, kind: str) -> Any:
        """The mask or quantizer at a side, or None."""
        return self.layer.slot(side, kind) if side in self._sides() else None

    def settled_masks(self) -> dict[str, tuple[bool, ...]]:
        """What the masks keep that never change again, by their sides: what stays is cut to that."""
        kept = {side: self.mode.kept(self.slot(side, "mask")) for side in self._sides()}
        return {side: tuple(keep.tolist()) for side, keep in kept.items() if keep is not None}

    def _sides(self) -> tuple[str, ...]:
        return self.layer.sides if isinstance(self.layer, Compressed) else ()

    def _open(self, side: str) -> bool:
        mask: ChannelMask | None = self.slot(side, "mask")
        return mask is not None and self.mode.kept(mask) is None

    def behind(self, values: Tensor) -> Tensor:
        """The channels of its own output behind the mask and the quantizer there."""
        mask, quant = self.slot("output", "mask"), self.slot("output", "quant")
        return compressed(values, self.call.shape, self.call.layout, mask, quant, self.mode)


def _index(align: Align) -> Tensor:
    return torch.tensor(align.index, dtype=torch.int64)  # of no channels at all, too


def _aligned(values: Tensor, align: Align) -> Tensor:
    index = _index(align)
    picked = values[index.clamp(min=0)] if len(values) else unknown(len(index))
    return torch.where(index >= 0, picked, torch.tensor(align.fill))


def at_least_one(channels: Tensor) -> Tensor:
    """The same, with the first channel if there would be none: torch has no layers without channels."""
    if channels.any():
        return channels
    one = torch.zeros_like(channels)
    one[:1] = True
    return one


class Summed(Layer):
    """`qprune.zoo.Add`."""

    def own(self, values: list[Tensor]) -> Tensor:
        """The sums."""
        return self.behind(torch.stack(values).sum(0))


class Concatenated(Layer):
    """`qprune.zoo.Concat` along channels."""

    def own(self, values: list[Tensor]) -> Tensor:
        """One behind the other."""
        return self.behind(torch.cat(values))

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Each argument's own."""
        return outputs, list(outputs.split([len(each) for each in self.entered]))


class Channelwise(Layer):
    """Layers that treat each channel alone."""

    def own(self, values: list[Tensor]) -> Tensor:
        """Run it on the constants, where that tells what it does to them."""
        return self.behind(self._alone(values[0]))

    def _alone(self, values: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            return self._normalized(values)
        if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
            return self._group_normalized(values)
        if isinstance(layer, CONSTANT_KEEPING):
            return values
        if isinstance(layer, nn.AvgPool2d):
            alone = layer.padding in (0, (0, 0)) and not layer.ceil_mode and layer.divisor_override is None
            return values if alone else zeros_alone(values)
        if isinstance(layer, ZERO_KEEPING):
            return zeros_alone(values)
        plain: Any = next(kind for kind in CHANNELWISE if isinstance(layer, kind))
        result = plain.forward(layer, as_image(values.clone(), self.call.shape, self.call.layout)).detach().flatten()
        return torch.where(values.isnan(), torch.nan, result)

    def _normalized(self, values: Tensor) -> Tensor:
        layer = self.layer
        if layer.track_running_stats and not self.mode.training:
            scale, shift = scale_and_shift(layer)
            return torch.where(scale == 0, shift, values * scale + shift)
        if layer.track_running_stats or (layer.affine and self.mode.training):
            return unknown(len(values))
        shift = torch.zeros_like(values) if layer.bias is None else layer.bias.detach().float().cpu()
        return torch.where(values == 0, shift, torch.nan)

    def _group_normalized(self, values: Tensor) -> Tensor:
        layer, shift = self.layer, torch.zeros_like(values)
        if layer.affine if isinstance(layer, nn.GroupNorm) else layer.elementwise_affine:
            if self.mode.training:
                return unknown(len(values))
            if layer.bias is not None:
                shift = layer.bias.detach().float().cpu()
        return torch.where(self._by_group(values == 0, all_of=True), shift, torch.nan)

    def _by_group(self, flags: Tensor, all_of: bool) -> Tensor:
        groups = flags.view(getattr(self.layer, "num_groups", 1), -1)  # a LayerNorm has one
        found = groups.all(1) if all_of else groups.any(1)
        return found.repeat_interleave(groups.shape[1])

    def inputs_for(self, outputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same; of a group normalization whole groups, zeros included, since they take part in the statistics."""
        if isinstance(self.layer, (nn.GroupNorm, nn.LayerNorm)):
            outputs = self._by_group(outputs, all_of=False)
        return outputs, [outputs]


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift, each ``(C,)``, of a normalization with running statistics in eval: ``x * scale + shift``.

    Example:
        >>> scale_and_shift(nn.BatchNorm2d(1, eps=0))
        (tensor([1.]), tensor([0.]))
    """
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        shift = shift + norm.bias.detach().double()
    return scale.float().cpu(), shift.float().cpu()
