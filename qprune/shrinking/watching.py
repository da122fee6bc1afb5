"""Looking at tensors that pass through a network, and putting others in their place, for as long as a block lasts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qprune.float32 import float32_math
from qprune.flow import leaves
from qprune.layers import FakeQuant, sites

Edit = Callable[[str, Tensor], Tensor]  # given the name of a place and the tensor there, the tensor to go on with


def noted(table: dict[str, list[Tensor]], place: str, tensor: Tensor) -> Tensor:
    """Leave a tensor as it is, and put a copy into a table: it may be overwritten."""
    table.setdefault(place, []).append(tensor.clone())
    return tensor


def quantizers(net: nn.Module) -> dict[str, FakeQuant]:
    """The quantizers of inputs and outputs by their places, ``<module path>.<side>``."""
    found = [site for site in sites(net) if site.side != "weight"]
    return {f"{site.path}.{site.side}": site.quant for site in found if site.quant is not None}


@contextmanager
def watching_quantizers(net: nn.Module, edit: Edit) -> Iterator[None]:
    """Edit what quantizers of inputs and outputs are given, active or not; a place is ``<module path>.<side>``."""

    def hook(place: str) -> Callable[..., Any]:
        return lambda _, given: (edit(place, given[0]), *given[1:])

    with ExitStack() as stack:
        for place, quant in quantizers(net).items():
            stack.callback(quant.register_forward_pre_hook(hook(place)).remove)
        yield


@contextmanager
def watching_layers(net: nn.Module, edit: Edit) -> Iterator[None]:
    """Edit what layers of torch's and qprune's make; a place is a module path."""

    def hook(place: str) -> Callable[..., Any]:
        return lambda _, __, result: edit(place, result) if isinstance(result, Tensor) else None

    with ExitStack() as stack:
        for path, layer in leaves(net):
            stack.callback(layer.register_forward_hook(hook(path)).remove)
        yield


@contextmanager
def trail_of(net: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules that are running; after an error, of those that did not finish."""
    trail: list[str] = []

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: trail.append(path)

    def leave(*_: Any) -> None:
        trail.pop()

    with ExitStack() as stack:
        for path, module in net.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                stack.callback(module.register_forward_pre_hook(enter(path)).remove)
                stack.callback(module.register_forward_hook(leave).remove)
        yield trail


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode and float32 meanwhile; then each layer gets its own mode back, and torch its settings.

    Float32 is that of the deployed network: also where training lets processors round factors to fewer bits.

    Example:
        >>> with evaluating(net):
        ...     output = net(images)
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with float32_math():
            yield
    finally:
        for module, training in modes.items():  # each its own: some normalizations may be frozen
            module.training = training
