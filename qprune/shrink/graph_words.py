"""The fixed list of what a saved graph may name: layers, functions, methods and attributes. Nothing on it can run code
that a file brings along, touch files, or make tensors out of nothing but numbers.
"""

import builtins
import operator
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qprune.layers import ALIGNED, HOSTS, Align, weighted

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm3d, nn.LayerNorm, nn.LocalResponseNorm,
    nn.PReLU, nn.Mish, nn.CELU, nn.SELU, nn.Softsign, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.LogSigmoid,
    nn.Threshold, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.GLU,
    nn.Dropout1d, nn.Dropout3d, nn.AlphaDropout,
    nn.MaxPool1d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool3d, nn.LPPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.ChannelShuffle, nn.Flatten, nn.Unflatten,
    nn.ZeroPad1d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad2d,
    Align,
)  # fmt: skip

# Every layer that may be called, by the name of its class.
TYPES: MappingProxyType[str, type[nn.Module]] = MappingProxyType(
    {kind.__name__: kind for kind in (*LAYERS, *ALIGNED, *ALIGNED.values())}
)
# What holds layers. The user's own classes come back as the first one.
CONTAINERS: MappingProxyType[str, type[nn.Module]] = MappingProxyType(
    {kind.__name__: kind for kind in (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)}
)
# The constructors of `qprune.layers.weighted` differ from their hosts in nothing but how they are made.
CONSTRUCTORS: MappingProxyType[type[nn.Module], type[nn.Module]] = MappingProxyType(
    {
        kind: next(host for host in HOSTS.values() if issubclass(kind, host))  # type: ignore[misc]
        for kind in vars(weighted).values()
        if isinstance(kind, type) and issubclass(kind, tuple(HOSTS.values())) and kind not in HOSTS.values()
    }
)

_TORCH = """
    abs add addcmul amax amin argmax argmin bmm cat chunk clamp clamp_max clamp_min clone concat concatenate cos div
    dropout einsum erf exp flatten flip floor floor_divide index_select lerp log log2 log_softmax logical_and
    logical_not logical_or matmul max maximum mean min minimum moveaxis movedim mul narrow neg norm permute pow
    reciprocal relu relu_ reshape roll round rsqrt select sigmoid sign sin softmax split sqrt square squeeze stack std
    sub sum swapaxes tanh tensor_split transpose true_divide unbind unflatten unsqueeze var where
"""
_FUNCTIONAL = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm celu channel_shuffle conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d dropout dropout1d dropout2d dropout3d elu elu_ fold gelu glu
    group_norm hardshrink hardsigmoid hardswish hardtanh hardtanh_ instance_norm interpolate layer_norm leaky_relu
    leaky_relu_ linear local_response_norm log_softmax logsigmoid lp_pool2d max_pool1d max_pool2d max_pool3d mish
    normalize pad pixel_shuffle pixel_unshuffle prelu relu relu6 relu_ scaled_dot_product_attention selu sigmoid silu
    softmax softmin softplus softshrink softsign tanh threshold unfold upsample
"""
_OPERATORS = """
    add sub mul truediv floordiv neg pow matmul getitem lt le gt ge eq ne and_ or_ invert
    iadd isub imul itruediv ifloordiv ipow iand ior setitem
"""
_METHODS = """
    abs add add_ amax amin argmax argmin bmm chunk clamp clamp_ clamp_max clamp_min clone contiguous cos detach dim div
    div_ eq exp expand expand_as flatten flip float floor ge gt half index_select le log log_softmax long lt masked_fill
    matmul max mean min mul mul_ narrow ne neg norm numel permute pow reciprocal relu relu_ reshape reshape_as roll
    round rsqrt select sigmoid sigmoid_ sign sin size softmax split sqrt square squeeze std sub sub_ sum swapaxes t tanh
    tanh_ tensor_split to transpose type_as unbind unflatten unfold unsqueeze var view view_as
    """

# Every function that may be called, by a name of its own; ``getattr`` reads no attribute but `ATTRIBUTES`.
FUNCTIONS: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {f"torch.{name}": getattr(torch, name) for name in _TORCH.split()}
    | {f"functional.{name}": getattr(F, name) for name in _FUNCTIONAL.split()}
    | {f"operator.{name}": getattr(operator, name) for name in _OPERATORS.split()}
    | {"getattr": builtins.getattr, "torch._assert": torch._assert}
)
METHODS = frozenset(_METHODS.split())
ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "T", "mT"})
DTYPES: MappingProxyType[str, torch.dtype] = MappingProxyType(
    {
        name: getattr(torch, name)
        for name in ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
    }
)
MEMORY_FORMATS: MappingProxyType[str, torch.memory_format] = MappingProxyType(
    {name: getattr(torch, name) for name in ("contiguous_format", "channels_last", "preserve_format")}
)

# Functions whose layer knows the mode by itself, which a traced argument does not.
DROPOUTS: MappingProxyType[Callable[..., Any], type[nn.Module]] = MappingProxyType(
    {
        F.dropout: nn.Dropout,
        F.dropout1d: nn.Dropout1d,
        F.dropout2d: nn.Dropout2d,
        F.dropout3d: nn.Dropout3d,
        F.alpha_dropout: nn.AlphaDropout,
    }
)


def leaf_type(layer: nn.Module) -> type[nn.Module] | None:
    """The listed type that a layer is, to the letter: a subclass may compute something else. None if it is none.

    Example:
        >>> leaf_type(nn.ReLU()).__name__, leaf_type(nn.Sequential())
        ('ReLU', None)
    """
    kind = CONSTRUCTORS.get(type(layer), type(layer))
    return kind if TYPES.get(kind.__name__) is kind else None
