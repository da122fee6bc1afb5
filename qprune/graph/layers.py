"""A layer as plain data, and back: its type from a fixed list, its options, its compressors, its alignments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from qprune.errors import CheckpointError, ShrinkError
from qprune.graph.arguments import plain, shown
from qprune.graph.operations import TYPES, leaf_type
from qprune.layers import (
    ALIGNED,
    HOSTS,
    Align,
    Aligned,
    BiasQuant,
    ChannelMask,
    Compressed,
    CompressedWeight,
    Compressor,
    make_quant,
)

SLOTS: dict[str, Callable[..., Compressor]] = {"mask": ChannelMask, "quant": make_quant}
MASK = ("channels", "axis", "importance", "multiple_of", "tied")
QUANT = ("bits", "channels", "axis", "symmetric", "numerics", "gradient", "ranging")
BIAS = ("channels", "levels")
_PLACES = ("device", "dtype")
_BARE = {aligned: kind for kind, aligned in ALIGNED.items()}
_PLAIN_OF: dict[type, type[nn.Module]] = {host: kind for kind, host in HOSTS.items()}


def describe_layer(layer: nn.Module) -> dict[str, Any]:
    """A listed layer as plain data, with its options, compressors and alignments, without parameters and buffers."""
    kind = leaf_type(layer)
    if kind is None:
        raise ShrinkError(f"a {type(layer).__name__} is none of the layers that a file may hold")
    if isinstance(layer, Align):
        return {"type": "Align", "options": dict(zip(("index", "fill", "axis"), _joint(layer), strict=False))}
    described: dict[str, Any] = {"type": kind.__name__, "options": _options(layer, _plain_type(kind))}
    if isinstance(layer, Compressed):
        described["slots"] = _slots(layer)
    if isinstance(layer, Aligned):
        described["arguments"] = [_joint(align) if isinstance(align, Align) else None for align in layer.arguments]
        described["result"] = None if layer.result is None else _joint(layer.result)
    return described


def _plain_type(kind: type[nn.Module]) -> type[nn.Module]:
    kind = _BARE.get(kind, kind)
    return _PLAIN_OF.get(kind, kind)


def _parameters(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(kind.__init__).parameters
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return {name: p for name, p in parameters.items() if p.kind is positional and name not in ("self", *_PLACES)}


def _options(layer: Any, kind: type[nn.Module]) -> dict[str, Any]:
    # what is at its default is left out, so that a torch with fewer options can read it
    options = {}
    for name, parameter in _parameters(kind).items():
        value: Any
        if name == "bias":
            # a normalization without a weight has no bias either, and needs no word about it
            value = layer.bias is not None or layer.weight is None
        elif hasattr(layer, name):
            value = getattr(layer, name)
        else:
            continue  # an old name of another option
        if not _is_default(value, parameter.default):
            options[name] = tuple(value) if isinstance(value, torch.Size) else value
    return options


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(value, tuple) and type(default) is int:
        return all(entry == default for entry in value)
    return type(value) is type(default) and bool(value == default)


def _slots(layer: Compressed) -> dict[str, Any]:
    slots = {}
    for side in layer.sides:
        for what, names in (("mask", MASK), ("quant", QUANT)):
            part = layer.slot(side, what)
            if part is not None:
                slots[f"{side}_{what}"] = {name: getattr(part, name) for name in names}
    if getattr(layer, "bias_quant", None) is not None:
        slots["bias_quant"] = {name: getattr(layer.bias_quant, name) for name in BIAS}  # type: ignore[attr-defined]
    return slots


def _joint(align: Align) -> list[Any]:
    joint = [torch.tensor(align.index, dtype=torch.int32), torch.tensor(align.fill, dtype=torch.float32)]
    return joint if align.axis == 1 else [*joint, align.axis]


def make_layer(described: Mapping[str, Any]) -> nn.Module:
    """The layer that `describe_layer` described, its parameters and buffers on the meta device."""
    name, options = described.get("type"), described.get("options")
    if type(name) is not str or name not in TYPES or type(options) is not dict:
        raise CheckpointError(f"{shown(name)} is none of the layers that a file may hold")
    try:
        return _made(TYPES[name], options, described)
    except CheckpointError:
        raise
    except Exception as error:  # torch's constructors raise what Python does for a wrong type
        raise CheckpointError(f"the options of a {name} do not fit together ({shown(str(error))})") from error


def _made(kind: type[nn.Module], options: dict[str, Any], described: Mapping[str, Any]) -> nn.Module:
    if kind is Align:
        return _align([options.get(name) for name in ("index", "fill", "axis") if name in options])
    unjoined = _BARE.get(kind, kind)
    with torch.device("meta"):
        layer: Any = unjoined(**_checked(options, tuple(_parameters(_plain_type(kind)))))
        for slot, entry in _entries(described, "slots") if isinstance(layer, Compressed) else ():
            side, _, what = str(slot).rpartition("_")
            if slot == "bias_quant" and isinstance(layer, CompressedWeight):
                layer.bias_quant = BiasQuant(**_checked(entry, BIAS))
                continue
            if side not in layer.sides or what not in SLOTS:
                raise CheckpointError(f"{shown(slot)} is no place of a {kind.__name__} for a mask or a quantizer")
            setattr(layer, slot, SLOTS[what](**_checked(entry, MASK if what == "mask" else QUANT)))
    if kind in _BARE:
        layer.__class__ = kind
        joints = described.get("arguments")
        arguments = [_align(joint) for joint in joints] if type(joints) is list else []
        layer.align(arguments, _align(described.get("result")))
    return layer


def _entries(described: Mapping[str, Any], key: str) -> Any:
    entries = described.get(key)
    if type(entries) is not dict:
        raise CheckpointError(f"{key} is {shown(entries)}, and must be a table")
    return entries.items()


def _checked(options: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if type(options) is not dict or not all(type(name) is str and name in known for name in options):
        raise CheckpointError(f"options must be a table of {', '.join(known)}; received {shown(options)}")
    return {name: _option(value) for name, value in options.items()}


def _option(value: Any, depth: int = 0) -> Any:
    if type(value) in (tuple, list) and depth < 3:
        return type(value)(_option(entry, depth + 1) for entry in value)
    return plain(value)


def _align(joint: Any) -> Any:
    if joint is None:
        return None
    parts = joint[:2] if type(joint) is list and len(joint) in (2, 3) else []
    if len(parts) != 2 or not all(isinstance(part, torch.Tensor) for part in parts):
        raise CheckpointError(f"channels are joined by two tensors, index and fill; received {shown(joint)}")
    index, fill = parts
    axis = joint[2] if len(joint) == 3 else 1
    if type(axis) is not int or not -8 < axis < 8:
        raise CheckpointError(f"channels are joined along a dimension, which is a whole number; received {shown(axis)}")
    if index.dtype != torch.int32 or fill.dtype != torch.float32 or index.dim() != 1 or fill.shape != index.shape:
        raise CheckpointError("channels are joined by numbers (int32) and constants (float32), as many of each")
    return Align(index.tolist(), fill.tolist(), axis)
