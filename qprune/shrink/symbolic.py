"""The calls of a network's forward, followed symbolically: what is the same for every input."""

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn
from torch.fx.proxy import Attribute, TraceError

from qprune.errors import ShrinkError
from qprune.flow import line_of
from qprune.shrink.graph_words import leaf_type


def symbolic_calls(net: nn.Module, given: int) -> list[fx.Node]:
    """The calls of a forward; layers that qprune and torch define are one call each, the user's own modules dissolve.

    What overwrites a tensor is a call like any other, in its place: ``x += y``, ``x[:, :2] = y``, ``x.relu_()``. Run in
    their order, the calls do to memory what the forward does.

    Args:
        net: any network, in the mode that is to be followed. Constants of its forward become attributes of it.
        given: how many arguments it is called with; further ones stay at their defaults.

    Raises:
        ShrinkError: the reason alone, if the forward decides by values or shapes, or calls what cannot be followed; the
            line of code is named.

    Example:
        >>> [call.op for call in symbolic_calls(nn.Sequential(nn.ReLU()), 1)]
        ['placeholder', 'call_module', 'output']
    """
    tracer = _Tracer(_defaults(net, given))
    try:
        return list(tracer.trace(net).nodes)
    except ShrinkError:
        raise
    except TraceError as error:
        reason = "its forward decides by values or shapes, or iterates over them"
        raise ShrinkError(f"{reason}{tracer.place(net, error)}") from error
    except Exception as error:  # the network's own code ran, with what is no tensor
        raise ShrinkError(
            f"its forward calls what cannot be followed without values{tracer.place(net, error)}"
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

    def place(self, net: nn.Module, error: Exception) -> str:
        """Whose forward it was, and which line of it, that raised an error."""
        running = type(self.running[-1] if self.running else net).__name__
        return f" (in that of {running}{line_of(error)})"

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return leaf_type(m) is not None


def _overwriting(function: Callable[..., Any]) -> Callable[..., Any]:
    def record(self: Any, *arguments: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, *arguments), {})

    return record


class _Overwritable:
    # torch's own proxies make x + y of x += y, a new tensor, and know no x[:, :2] = y
    __iadd__ = _overwriting(operator.iadd)
    __isub__ = _overwriting(operator.isub)
    __imul__ = _overwriting(operator.imul)
    __itruediv__ = _overwriting(operator.itruediv)
    __ifloordiv__ = _overwriting(operator.ifloordiv)
    __imod__ = _overwriting(operator.imod)
    __ipow__ = _overwriting(operator.ipow)
    __iand__ = _overwriting(operator.iand)
    __ior__ = _overwriting(operator.ior)
    __ixor__ = _overwriting(operator.ixor)
    __setitem__ = _overwriting(operator.setitem)

    def __getattr__(self: Any, name: str) -> Any:
        return _Attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "data":
            raise ShrinkError("its forward sets the data of a tensor (x.data = y); give y a name of its own")
        super().__setattr__(name, value)


class _Proxy(_Overwritable, fx.Proxy):
    """A tensor to be, of which it is known when it is overwritten."""


class _Attribute(_Overwritable, Attribute):
    """What is read of one: ``x.shape``, ``x.data``."""


def _defaults(net: nn.Module, given: int) -> dict[str, Any]:
    parameters = list(inspect.signature(net.forward).parameters.values())[given:]
    return {p.name: p.default for p in parameters if p.default is not p.empty}
