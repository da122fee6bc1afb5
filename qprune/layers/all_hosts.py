"""`HOSTS`: what each layer becomes when it gets a site; here one for each other layer that keeps channels."""

from typing import Any

from torch import Tensor, nn

from qprune.layers.activations import CompressedLeakyReLU, CompressedReLU, CompressedReLU6
from qprune.layers.hosts import (
    CompressedAdaptiveAvgPool2d,
    CompressedAdd,
    CompressedAvgPool2d,
    CompressedBatchNorm2d,
    CompressedConcat,
    CompressedConv2d,
    CompressedConvTranspose2d,
    CompressedInstanceNorm2d,
    CompressedLinear,
    CompressedOutput,
    CompressedWeight,
)  # fmt: skip
from qprune.layers.slots import Compressed
from qprune.zoo import Add, Concat


class CompressedConv1d(CompressedWeight, nn.Conv1d):
    """`torch.nn.Conv1d` with sites at input, weight and output. Input ``(N, C, L)`` or ``(C, L)``."""

    channel_axis = -2

    def forward(self, input: Tensor) -> Tensor:
        """Compress the input, convolve with the compressed weight, compress the output."""
        return self._product(self._conv_forward, input)


class CompressedConv3d(CompressedWeight, nn.Conv3d):
    """`torch.nn.Conv3d` with sites at input, weight and output. Input ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    channel_axis = -4

    def forward(self, input: Tensor) -> Tensor:
        """Compress the input, convolve with the compressed weight, compress the output."""
        return self._product(self._conv_forward, input)


class CompressedLayerNorm(CompressedOutput, nn.LayerNorm):
    """`torch.nn.LayerNorm` over channels at the last dimension, whose output is a site."""

    channel_axis = -1

    def channels_at(self, side: str) -> int:
        """The size of the last dimension."""
        return self.normalized_shape[-1]


# Layers of torch that keep channels: a mask and a quantizer at their output ask nothing more of them.
_OTHERS: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm3d, nn.GroupNorm,
    nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.PReLU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh,
    nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool3d, nn.LPPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Upsample,
)  # fmt: skip
_MADE: dict[type[nn.Module], type[Any]] = {
    plain: type(
        f"Compressed{plain.__name__}",
        (CompressedOutput, plain),
        {"__doc__": f"`torch.nn.{plain.__name__}` whose output is a site.", "__module__": __name__},
    )
    for plain in _OTHERS
}
globals().update({host.__name__: host for host in _MADE.values()})  # where pickle and deepcopy look

HOSTS: dict[type[nn.Module], type[Compressed]] = {
    nn.Conv2d: CompressedConv2d,
    nn.Conv1d: CompressedConv1d,
    nn.Conv3d: CompressedConv3d,
    nn.ConvTranspose2d: CompressedConvTranspose2d,
    nn.Linear: CompressedLinear,
    nn.BatchNorm2d: CompressedBatchNorm2d,
    nn.InstanceNorm2d: CompressedInstanceNorm2d,
    nn.LayerNorm: CompressedLayerNorm,
    nn.ReLU: CompressedReLU,
    nn.ReLU6: CompressedReLU6,
    nn.LeakyReLU: CompressedLeakyReLU,
    nn.AvgPool2d: CompressedAvgPool2d,
    nn.AdaptiveAvgPool2d: CompressedAdaptiveAvgPool2d,
    Add: CompressedAdd,
    Concat: CompressedConcat,
    **_MADE,
}
