"""The arguments of a call in a graph as plain data, and back."""

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from qprune.errors import CheckpointError, ShrinkError
from qprune.graph.operations import DTYPES, MEMORY_FORMATS

DEPTH = 12  # levels of lists in each other; the arguments of torch's functions have two
LARGEST = 2**31  # no size of a tensor, and no number of a channel, is beyond
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def encode(value: Any, numbers: Mapping[Node, int]) -> Any:
    """An argument of a node as plain data: a node by its number, ``{"node": 3}``; dtypes in the same way.

    A ShrinkError says which value a file must not hold.
    """
    if isinstance(value, Node):
        return {"node": numbers[value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (torch.dtype, torch.memory_format)):
        kind = "dtype" if isinstance(value, torch.dtype) else "memory_format"
        return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {"dict": {key: encode(entry, numbers) for key, entry in value.items()}}
    if isinstance(value, list) or type(value) in (tuple, torch.Size):
        kind_of_list = list if isinstance(value, list) else tuple
        return kind_of_list(encode(entry, numbers) for entry in value)
    raise ShrinkError(f"a {type(value).__name__} among the arguments of a call, {str(value)[:60]!r}, is no plain data")


def decode(value: Any, nodes: Sequence[Any], depth: int = 0) -> Any:
    """What `encode` made plain."""
    if depth > DEPTH:
        raise CheckpointError(f"arguments are nested deeper than {DEPTH} levels")
    if type(value) in (list, tuple):
        return type(value)(decode(entry, nodes, depth + 1) for entry in value)
    if type(value) is dict and len(value) == 1:
        ((kind, content),) = value.items()
        return _marked(kind, content, nodes, depth + 1)
    return plain(value)


def _marked(kind: Any, content: Any, nodes: Sequence[Any], depth: int) -> Any:
    if kind == "node" and type(content) is int and 0 <= content < len(nodes):
        return nodes[content]
    if kind == "dtype" and type(content) is str and content in DTYPES:
        return DTYPES[content]
    if kind == "memory_format" and type(content) is str and content in MEMORY_FORMATS:
        return MEMORY_FORMATS[content]
    if kind == "dict" and type(content) is dict and all(type(key) is str for key in content):
        return {key: decode(entry, nodes, depth) for key, entry in content.items()}
    raise CheckpointError(
        f"an argument is {{{shown(kind)}: {shown(content)}}}, which stands for nothing before its call"
    )


def plain(value: Any) -> Any:
    """The value itself, if it is None, a switch, text or a number of sensible size."""
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int and abs(value) < LARGEST:
        return value
    if type(value) is str and len(value) <= 1000:
        return value
    raise CheckpointError(f"{shown(value)} is no number below {LARGEST:,}, no short text and no switch")


def name(value: Any) -> str:
    """The value itself, if it may be the name of an argument."""
    known = type(value) is str and _NAME.fullmatch(value) and "__" not in value and not keyword.iskeyword(value)
    if not known or value in ("self", "torch", "operator"):
        raise CheckpointError(f"{shown(value)} is no name of an argument")
    return str(value)


def path(value: Any) -> str:
    """The value itself, if it may be the path of a layer, a parameter or a buffer."""
    if type(value) is not str or not _PATH.fullmatch(value) or "__" in value:
        raise CheckpointError(f"{shown(value)} is no path of a layer or a tensor")
    return value


def shown(value: Any) -> str:
    """A few words about a value that may be hostile, long or endless, for an error."""
    if type(value) is str:
        return repr(value[:60])
    if type(value) is float or (type(value) is int and abs(value) < 1e15):
        return repr(value)
    return "a huge number" if type(value) is int else f"a {type(value).__name__}"
