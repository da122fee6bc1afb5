"""The calls of a network's forward, followed symbolically: what is the same for every input."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from qprune.errors import ShrinkError
from qprune.flow import line_of
from qprune.shrink.graph_words import leaf_type


def symbolic_calls(net: nn.Module, given: int) -> list[fx.Node]:
    """The calls of a forward; layers that qprune and torch define are one call each, the user's own modules dissolve.

    Args:
        net: any network, in the mode that is to be followed. Constants of its forward become attributes of it.
        given: how many arguments it is called with; further ones stay at their defaults.

    Raises:
        ShrinkError: the reason alone, if the forward decides by values or shapes, or calls what cannot be followed.

    Example:
        >>> [call.op for call in symbolic_calls(nn.Sequential(nn.ReLU()), 1)]
        ['placeholder', 'call_module', 'output']
    """
    tracer = _Tracer(_defaults(net, given))
    try:
        return list(tracer.trace(net).nodes)
    except Exception as error:  # the network's own code ran, with what is no tensor
        running = type(tracer.running[-1] if tracer.running else net).__name__
        raise ShrinkError(
            "its forward decides by values or shapes, or calls what cannot be followed "
            f"(in that of {running}{line_of(error)})"
        ) from error


class _Tracer(fx.Tracer):
    # a buffer computed with is part of the graph, not a constant of the day it was saved
    proxy_buffer_attributes = True

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self.fixed = fixed  # arguments that stay at their defaults
        self.running: list[nn.Module] = []

    def create_proxy(self, kind: str, target: Any, *arguments: Any, **options: Any) -> Any:
        if kind == "placeholder" and target in self.fixed:
            return self.fixed[target]
        return super().create_proxy(kind, target, *arguments, **options)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.running.append(m)
        result = super().call_module(m, forward, args, kwargs)
        self.running.pop()
        return result

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return leaf_type(m) is not None


def _defaults(net: nn.Module, given: int) -> dict[str, Any]:
    parameters = list(inspect.signature(net.forward).parameters.values())[given:]
    return {p.name: p.default for p in parameters if p.default is not p.empty}
