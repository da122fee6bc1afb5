"""Hosts of activations, which rectify and mask at once."""

import math

import torch
from torch import Tensor, nn

from qprune.layers.fused import fused, fuses
from qprune.layers.hosts import CompressedOutput
from qprune.layers.recomputing import recomputes
from qprune.masking import rectify_channels

torch.fx.wrap("rectify_channels")  # one operation to symbolic tracing, which cannot know a dtype


class _Rectifier(CompressedOutput):
    # Rectifies and masks at once, into values that the quantizer may overwrite; unless the mask, or a hook of it, wants
    # to see the values between, or torch is to overwrite the input.
    inplace: bool
    ceiling = math.inf

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # one, and under torch's name
        """The torch layer, then the output's mask and quantizer."""
        mask, quant = self.output_mask, self.output_quant
        if not self.inplace and (mask is not None or quant is not None) and fuses(input, mask, quant):
            return fused(input, mask, quant, self.ceiling)
        if self.inplace or (mask is None and quant is None) or (mask is not None and (mask.watching or mask.hooked)):
            return super().forward(input)
        keep, axis = (None, 1) if mask is None else (mask.keep, mask.axis)
        remember = {"reusable": quant is not None, "as_bools": recomputes(self, input)}
        y = rectify_channels(input, keep, axis, self.ceiling, **remember)
        return y if quant is None else quant(y, mask, owned=True, nonnegative=True)


class CompressedReLU(_Rectifier, nn.ReLU):
    """`torch.nn.ReLU` whose output is a site."""


class CompressedReLU6(_Rectifier, nn.ReLU6):
    """`torch.nn.ReLU6` whose output is a site."""

    ceiling = 6.0


class CompressedLeakyReLU(CompressedOutput, nn.LeakyReLU):
    """`torch.nn.LeakyReLU` whose output is a site."""
