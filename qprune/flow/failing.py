"""Explains why a network could not be traced, in a sentence about the network."""

import traceback
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

# Functions that hand values of tensors to Python.
VALUES = (
    "item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__contains__", "nonzero",
    "cpu", "unique", "masked_select", "equal", "allclose",
)  # fmt: skip
LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


@frozen(eq=False)
class Failed:
    """A function that raised an error."""

    error: Exception
    name: str
    tensors: tuple[Tensor, ...]  # those among its arguments


def reason(net: nn.Module, arguments: tuple[Any, ...], error: Exception, failed: Failed | None, path: str) -> str:
    """Explain an error of a network on the meta device in a sentence, with the way out."""
    if not _takes(net, arguments):
        return (
            f"its forward takes other arguments than the {len(arguments)} of the example. Give a tuple of those that "
            "it takes."
        )
    place = named(net, path) + line_of(error)
    if failed is None or failed.error is not error:
        return f"{place} raises {_told(error)}. Run the network on the example first: net(example) must work as it is."
    if failed.name in VALUES or isinstance(error, NotImplementedError):
        return (
            f"{place} reads values of a tensor ({failed.name}). Its forward must run on the meta device, that is, "
            "without reading values: compute with tensors (torch.where), decide before it runs, or take the part of it "
            "that does not (of a detector the backbone: net.backbone = swap(net.backbone, ...))."
        )
    if len({tensor.is_meta for tensor in failed.tensors}) > 1:
        return (
            f"{place} computes ({failed.name}) with a tensor that is neither a parameter nor a buffer of the network, "
            "and stays where it was made. Register it (self.register_buffer), or make it in the forward, on the "
            "input's device."
        )
    found = " and ".join(str(tuple(tensor.shape)) for tensor in failed.tensors)
    given = f"tensors of shape {found}" if found else "what it is given"
    return f"{place} cannot compute {failed.name} of {given}; check the example's shape first."


def line_of(error: BaseException) -> str:
    """The line of the user's code that raised an error, as part of a sentence; empty if none did.

    Example:
        >>> line_of(ValueError("never raised"))
        ''
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES) and frame.line]
    return f", at `{own[-1].line}` ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _takes(net: nn.Module, arguments: tuple[Any, ...]) -> bool:
    try:
        signature(net.forward).bind(*arguments)
    except TypeError:
        return False
    return True


def _told(error: Exception) -> str:
    # what the network's author wrote is worth quoting; Python's own words are about other things
    words = str(error).splitlines()[:1] if isinstance(error, (AssertionError, ValueError)) else []
    return f'{type(error).__name__} ("{words[0]}")' if words else type(error).__name__


def shapes(values: Any) -> str:
    """The shapes of all tensors, as part of a sentence: ``"(2, 3), (5,)"``."""
    return ", ".join(str(tuple(leaf.shape)) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def named(net: nn.Module, path: str) -> str:
    """A module by its path and class, as people know it.

    Example:
        >>> net = nn.Sequential(nn.ReLU())
        >>> named(net, "0"), named(net, "")
        ('"0" (ReLU)', 'the forward of Sequential')
    """
    kind = type(net.get_submodule(path)).__name__
    return f'"{path}" ({kind})' if path else f"the forward of {kind}"
