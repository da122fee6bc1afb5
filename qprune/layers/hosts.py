"""Drop-in hosts: torch layers with slots for a mask and a quantizer on their input, weight and output.

Every slot is empty until it is filled, and a host with empty slots is its torch layer to the bit.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qprune.layers.fused import fused, fuses
from qprune.layers.mask import ChannelMask
from qprune.layers.quantizer import FakeQuant
from qprune.layers.recomputing import recomputed, recomputes
from qprune.layers.slots import Compressed, WeightSlots
from qprune.zoo import Add, Concat

if TYPE_CHECKING:
    from qprune.layers.ready import ReadyWeight


def compress(
    x: Tensor, mask: ChannelMask | None, quant: FakeQuant | None, host: "CompressedWeight | None" = None
) -> Tensor:
    """Mask, then quantizer; empty slots pass through. A weight of a ``host`` may lie ready there."""
    if mask is None and quant is None:
        return x
    if fuses(x, mask, quant):
        return fused(x, mask, quant, ready=None if host is None else host.ready_weight)
    if mask is None:
        return x if quant is None else quant(x)
    return mask(x) if quant is None else quant(mask(x), mask, raw=x, owned=True)


class CompressedOutput(Compressed):
    """A host whose output alone is a site."""

    output_mask: ChannelMask | None
    output_quant: FakeQuant | None

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """The torch layer, then the output's mask and quantizer."""
        return compress(super().forward(*inputs, **named), self.output_mask, self.output_quant)  # type: ignore[misc]


class CompressedWeight(WeightSlots):
    """A host with a weight: sites at its input, weight and output."""

    ready_weight: "ReadyWeight | None" = None  # set by `qprune.layers.ReadyWeights`

    def _weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        mask, quant, bias = self.weight_mask, self.weight_quant, self.bias
        if self.bias_quant is not None and bias is not None:
            bias = self.bias_quant(bias)
        if mask is None and quant is None:
            return self.weight, bias
        if mask is not None and bias is not None:
            bias = torch.where(mask.keep, bias, 0)
        return self.rows(compress(self.rows(self.weight), mask, quant, self)), bias

    def _product(self, compute: Callable[..., Tensor], x: Tensor) -> Tensor:
        """Compress the input, compute with the compressed weight, compress the output."""
        operands = (compress(x, self.input_mask, self.input_quant), *self._weight_and_bias())
        if recomputes(self, x):
            y = recomputed(self, compute, x, *operands)
        elif self.training or not self.beyond_float():  # type: ignore[attr-defined]
            y = compute(*operands)
        else:
            y = compute(*[None if each is None else each.double() for each in operands]).to(x.dtype)
        return compress(y, self.output_mask, self.output_quant)


class CompressedConv2d(CompressedWeight, nn.Conv2d):
    """`torch.nn.Conv2d` with sites at input, weight and output. Input ``(N, C, H, W)`` or ``(C, H, W)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Compress the input, convolve with the compressed weight, compress the output."""
        return self._product(self._conv_forward, input)


class CompressedConvTranspose2d(CompressedWeight, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with sites at input, weight and output. Input ``(N, C, H, W)`` or ``(C, H, W)``."""

    def rows(self, weight: Tensor) -> Tensor:
        """Swap the channel axes of each group: ``(in, out / groups, ...)`` to ``(out, in / groups, ...)`` and back."""
        return weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Compress the input, convolve with the compressed weight, compress the output."""
        shape = (self.stride, self.padding, self.kernel_size, 2, self.dilation)
        padding = self._output_padding(input, output_size, *shape)  # type: ignore[arg-type]
        arguments = (self.stride, self.padding, padding, self.groups, self.dilation)
        compute: Any = F.conv_transpose2d
        return self._product(lambda x, weight, bias: compute(x, weight, bias, *arguments), input)


class CompressedLinear(CompressedWeight, nn.Linear):
    """`torch.nn.Linear` with sites at input, weight and output. Input ``(*, in_features)``."""

    channel_axis = -1

    def channels_at(self, side: str) -> int:
        """Input features, or output features for the weight and output sides."""
        return self.in_features if side == "input" else self.out_features

    def forward(self, input: Tensor) -> Tensor:
        """Compress the input, multiply with the compressed weight, compress the output."""
        return self._product(F.linear, input)


class CompressedBatchNorm2d(CompressedOutput, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose output is a site."""


class CompressedInstanceNorm2d(CompressedOutput, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` whose output is a site."""


class CompressedAvgPool2d(CompressedOutput, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` whose output is a site."""


class CompressedAdaptiveAvgPool2d(CompressedOutput, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` whose output is a site."""


class CompressedAdd(CompressedOutput, Add):
    """`qprune.zoo.Add` whose output is a site."""


class CompressedConcat(CompressedOutput, Concat):
    """`qprune.zoo.Concat` whose output is a site."""
