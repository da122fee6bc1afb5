"""The fixed list of what a saved graph may name: layers, operations and arithmetic. Nothing on it can run code
that a file brings along, touch files, or make tensors out of nothing but numbers.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator
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

# Operations of ATen by their names without overload; none that overwrites, and none that makes random numbers.
_ATEN = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _log_softmax _native_batch_norm_legit_no_training _prelu_kernel _softmax
    _to_copy _unsafe_index _unsafe_view abs acos adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d add
    addcdiv addcmul addmm all amax amin any arange argmax argmin asin atan atan2 avg_pool1d avg_pool2d avg_pool3d
    baddbmm bitwise_and bitwise_not bitwise_or bitwise_xor bmm bucketize cat ceil celu clamp clamp_max clamp_min clone
    col2im constant_pad_nd convolution copy cos cosh cumsum diagonal div elu embedding eq erf exp expand expm1 fill
    flatten flip floor floor_divide fmod full full_like gather ge gelu glu grid_sampler_2d gt hardshrink hardsigmoid
    hardswish hardtanh im2col index index_select isinf isnan le leaky_relu linalg_vector_norm log log10 log1p log2
    log_sigmoid_forward logical_and logical_not logical_or logical_xor lt masked_fill max max_pool2d_with_indices
    max_pool3d_with_indices maximum mean min minimum mish mm mul native_batch_norm native_channel_shuffle
    native_group_norm native_layer_norm ne neg new_full new_ones new_zeros ones ones_like permute pixel_shuffle
    pixel_unshuffle pow prod reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu remainder repeat
    replication_pad1d replication_pad2d replication_pad3d roll round rsqrt rsub scalar_tensor scatter select
    select_scatter selu sigmoid sign silu sin sinh slice slice_scatter softplus softshrink split split_with_sizes sqrt
    squeeze stack std sub sum sym_numel sym_size t tan tanh threshold topk transpose tril triu trunc unbind unfold
    unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_trilinear3d var var_mean view where zeros zeros_like
"""
_WHOLE = """
    dropout dropout1d dropout2d dropout3d alpha_dropout interpolate linear pad scaled_dot_product_attention
"""
_ARITHMETIC = "add sub mul truediv floordiv mod neg pow getitem lt le gt ge eq ne and_ or_"
_OF_SIZES = "sym_max sym_min sym_float sym_int sym_not sym_sqrt"
_BY_NAME: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {f"functional.{name}": getattr(F, name) for name in _WHOLE.split()}
    | {f"operator.{name}": getattr(operator, name) for name in _ARITHMETIC.split()}
    | {f"torch.{name}": getattr(torch, name) for name in _OF_SIZES.split() if hasattr(torch, name)}
    | {f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")}
)
_NAMES = {function: name for name, function in _BY_NAME.items()}
_WORD = re.compile(r"aten\.([a-z0-9_]+)\.([A-Za-z0-9_]+)")


def operation(name: Any) -> Callable[..., Any] | None:
    """What may be called by this name; None if nothing may."""
    if type(name) is not str:
        return None
    found = _WORD.fullmatch(name)
    if found is None:
        return _BY_NAME.get(name)
    base, overload = found.groups()
    known = base in _ATEN.split() and overload in getattr(torch.ops.aten, base).overloads()
    chosen = getattr(getattr(torch.ops.aten, base), overload) if known else None
    return None if chosen is None or chosen._schema.is_mutable else chosen


def operation_name(function: Any) -> str | None:
    """The name by which a file may call a function; None if it may not."""
    name = str(function) if isinstance(function, torch._ops.OpOverload) else _NAMES.get(function)
    return name if operation(name) is function else None


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


def outermost(net: nn.Module, is_layer: Callable[[nn.Module], bool]) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network, with their paths: modules that are one call, and lie in no other such."""
    covered: tuple[str, ...] = ()
    for path, module in net.named_modules():
        if path and not path.startswith(covered or ("\0",)) and is_layer(module):
            covered = (*covered, f"{path}.")
            yield path, module


def is_layer(module: nn.Module) -> bool:
    """Whether a file may hold a module as one layer."""
    return leaf_type(module) is not None
