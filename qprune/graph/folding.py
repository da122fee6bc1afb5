"""What torch wrote down of a forward, as a graph over the network's own layers, parameters and buffers."""

import linecache
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import SymInt, Tensor, fx, nn
from torch.utils._pytree import tree_unflatten

from qprune.errors import ShrinkError
from qprune.graph.operations import DROPOUTS

EXTRA = "_traced"  # holds what has no place in the network as it was written: constants, and dropouts of functions
_aten = torch.ops.aten
_SAME = {_aten.detach.default, _aten.alias.default, _aten.lift_fresh_copy.default, _aten.lift_fresh.default}
_STRIDED = {_aten.as_strided.default, _aten.as_strided_.default}
_VIEWS = {_aten.view.default, _aten._unsafe_view.default}
_SLICES, _END = {_aten.slice.Tensor, _aten.slice_scatter.default}, 2**63 - 1
_PLACES = ("device", "layout", "pin_memory", "non_blocking")


def add_extra(net: nn.Module, kind: str, module: nn.Module | None = None, tensor: Tensor | None = None) -> str:
    """Give a network a layer or a constant that its author did not; the path of it."""
    if not hasattr(net, EXTRA):
        net.add_module(EXTRA, nn.Module())
    extra: Any = getattr(net, EXTRA)
    name = next(f"{kind}_{n}" for n in range(len(dir(extra)) + 1) if not hasattr(extra, f"{kind}_{n}"))
    if module is not None:
        extra.add_module(name, module)
    else:
        # not on the network itself, where a copy of a graph module would take it for a part of the state
        extra.register_buffer(name, tensor, persistent=False)
    return f"{EXTRA}.{name}"


def hint(size: Any) -> Any:
    """A size in the example."""
    node: Any = getattr(size, "node", None)
    return int(node.hint) if isinstance(size, SymInt) else size


def place_of(call: fx.Node) -> tuple[str, str]:
    """The path of the module in whose forward a call is, and the line of its code: parts of a sentence, or empty."""
    known = call.meta.get("custom", {})
    path, line = known.get("path"), known.get("line")
    shown = f", at `{linecache.getline(*line).strip()}` ({Path(line[0]).name}, line {line[1]})" if line else ""
    return f"{path}: " if path else "", shown


def as_graph(
    net: nn.Module, traced: fx.GraphModule, state: Sequence[str], inputs: Sequence[str], kept: Sequence[Any],
    results: Sequence[Any], form: Any,
) -> fx.GraphModule:  # fmt: skip
    """The graph of a forward that was written down as a function of ``state`` (paths), then of ``inputs`` (names).

    ``kept`` are the calls that stayed whole; ``results`` of the forward are None for tensors, and have the structure
    ``form``. The network gets constants of its forward as buffers.
    """
    making = _Making(net, traced, kept)
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    for name, node in zip(inputs, placeholders[len(state) :], strict=True):
        making.made[node] = making.graph.placeholder(name)
        making.made[node].meta = node.meta
    making.owned = dict(zip(placeholders, state, strict=False))
    for node in traced.graph.nodes:
        if node.op == "call_function":
            making.call(node)
        elif node.op == "output":
            ahead = iter(node.args[0])
            outputs = [making.given(next(ahead)) if each is None else each for each in results]
            making.graph.output(tree_unflatten(outputs, form))
    for node in reversed(list(making.graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            making.graph.erase_node(node)
    _refuse_spoilt(making.graph)
    return fx.GraphModule(net, making.graph, type(net).__name__)


@frozen
class Spoilt:
    """Stands for what a layer leaves of a tensor that it overwrites, where its result is another tensor."""

    by: str  # path of the layer
    __name__ = "spoilt"

    def __call__(self, x: Tensor) -> Tensor:
        """It cannot be called."""
        raise NotImplementedError


def _refuse_spoilt(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if isinstance(node.target, Spoilt):
            raise ShrinkError(
                f"{node.target.by} overwrites what it is given, which is read again, and hands on something else. Set "
                "inplace=False there"
            )


class _Making:
    """A graph while it is made: `made` has for each node that was written down the one, or the tensor, in its place."""

    def __init__(self, net: nn.Module, traced: fx.GraphModule, kept: Sequence[Any]) -> None:
        self.net, self.traced, self.kept = net, traced, kept
        self.graph = fx.Graph()
        self.made: dict[fx.Node, Any] = {}
        self.owned: Mapping[fx.Node, str] = {}

    def given(self, value: Any) -> Any:
        """An argument in the graph."""
        return fx.node.map_arg(value, self._node)

    def _node(self, node: fx.Node) -> Any:
        if node not in self.made and node in self.owned:
            self.made[node] = self._attribute(self.owned[node], node)
        elif node.op == "get_attr":
            self.made.setdefault(node, getattr(self.traced, str(node.target)))
        made = self.made[node]
        if isinstance(made, Tensor):
            made = self.made[node] = self._attribute(add_extra(self.net, "constant", tensor=made.detach()), node)
        return made

    def _attribute(self, path: str, node: fx.Node) -> fx.Node:
        made = self.graph.get_attr(path)
        made.meta = node.meta
        return made

    def call(self, node: fx.Node) -> None:
        """Take over one call."""
        arguments = [self._plain(each) for each in node.all_input_nodes]
        if node.target is _aten.copy_.default:
            self._refuse_state(node.args[0])
        elif str(node.target).startswith(("aten._assert", "aten.sym_constrain")):
            pass  # what the forward demands of sizes
        elif all(isinstance(each, (Tensor, tuple)) for each in arguments) and not _is_kept(node):
            self.made[node] = _computed(node, dict(zip(node.all_input_nodes, arguments, strict=True)))
        elif (same := _replacement(node)) is not None:
            self.made[node] = self.given(same)
        else:
            self.made[node] = self._whole(node) if _is_kept(node) else self._taken_over(node)
            self.made[node].meta = node.meta

    def _plain(self, node: fx.Node) -> Any:
        # the tensor that a node is known to be in every forward, or the node
        if node.op == "get_attr":
            return getattr(self.traced, str(node.target))
        made = self.made.get(node, node)
        return made if isinstance(made, (Tensor, tuple)) else node

    def _taken_over(self, node: fx.Node) -> fx.Node:
        options = {key: value for key, value in node.kwargs.items() if key not in _PLACES}
        target, arguments = _reshaped(node) if node.target in _VIEWS else (node.target, node.args)
        if node.target in _SLICES:
            arguments = tuple(None if each == _END else each for each in arguments)
        return self.graph.create_node(
            "call_function", target, self.given(arguments), self.given(options), _name(target)
        )

    def _whole(self, node: fx.Node) -> fx.Node:
        arguments: Any = node.args
        tensors, sizes, number = arguments
        call = self.kept[number]
        arguments, options = tree_unflatten(call.filled(self.given(tensors), self.given(sizes)), call.form)
        if isinstance(call.target, str):
            return self.graph.call_module(call.target, arguments, options)
        if call.target in DROPOUTS:  # its number among them
            node.meta["dropout"] = sum(each.target in DROPOUTS for each in self.kept[:number])
        return self.graph.call_function(call.target, arguments, options)

    def _refuse_state(self, written: Any) -> None:
        if written in self.owned:
            raise ShrinkError(
                f"its forward overwrites {self.owned[written]}, which the network keeps from one forward to the next; "
                "a file keeps nothing. Compute with a new tensor instead"
            )


def _is_kept(node: fx.Node) -> bool:
    return node.target is torch.ops.qprune.kept.default


def _name(target: Any) -> str:
    return str(getattr(target, "_opname", getattr(target, "__name__", "call"))).strip("_")


def _reshaped(node: fx.Node) -> tuple[Any, tuple[Any, ...]]:
    """A change of shape with as few sizes as can say it: those of channels may be others when the graph runs."""
    given, sizes = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    before, after = ([str(size) for size in each.meta["val"].shape] for each in (given, node))  # type: ignore[union-attr]
    kept = len(after) - 1
    if len(before) > len(after) > 0 and before[:kept] == after[:kept]:
        return _aten.flatten.using_ints, (given, kept)
    nodes = [(place, size) for place, size in enumerate(sizes) if isinstance(size, fx.Node)]
    computed = [place for place, size in nodes if size.target is not _aten.sym_size.int]
    whole = [place for place, size in enumerate(sizes) if isinstance(size, int)]
    if len(computed) == 1 or (not computed and len(whole) == 1):
        sizes[(computed or whole)[0]] = -1
    return node.target, (given, sizes)


def _computed(node: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
    target: Any = node.target
    arguments = fx.node.map_arg((node.args, node.kwargs), lambda each: known[each])
    with torch.no_grad():
        return target(*arguments[0], **arguments[1])


def _replacement(node: fx.Node) -> fx.Node | None:
    """The argument that a call gives back as it is; None if it does not."""
    target, arguments = node.target, node.args
    if target in _SAME:
        return arguments[0]  # type: ignore[return-value]
    if target is _aten.copy.default and _alike(arguments[0], arguments[1]):
        return arguments[1]  # type: ignore[return-value]
    if target is _aten._to_copy.default and _alike(arguments[0], node) and "memory_format" not in node.kwargs:
        return arguments[0]  # type: ignore[return-value]
    if target is _aten.slice.Tensor and _alike(arguments[0], node):
        return arguments[0]  # type: ignore[return-value]
    if target is _aten.slice_scatter.default and _alike(arguments[1], node):
        return arguments[1]  # type: ignore[return-value]
    if target in _STRIDED and _laid_out_as(arguments[0], arguments[2]):
        return arguments[0]  # type: ignore[return-value]
    if target is _aten.expand.default and _alike(arguments[0], node):
        return arguments[0]  # type: ignore[return-value]
    return None


def _laid_out_as(given: Any, strides: Any) -> bool:
    """Whether a tensor has these strides, where it has more than one entry."""
    tensor = given.meta["val"]
    pairs = zip(tensor.shape, tensor.stride(), strides, strict=False)
    return len(strides) == tensor.dim() and all(n == 1 or str(one) == str(other) for n, one, other in pairs)


def _alike(one: Any, other: Any) -> bool:
    if not all(isinstance(each, fx.Node) and isinstance(each.meta.get("val"), Tensor) for each in (one, other)):
        return False
    tensors = one.meta["val"], other.meta["val"]
    return str(tensors[0].shape) == str(tensors[1].shape) and tensors[0].dtype == tensors[1].dtype
