"""From a graph in a file to a network: names are looked up in a fixed list, sizes are compared with the tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from qprune.errors import CheckpointError
from qprune.graph.arguments import decode, name, path, shown
from qprune.graph.folding import EXTRA
from qprune.graph.layers import make_layer
from qprune.graph.operations import CONTAINERS, leaf_type, operation
from qprune.layers import Compressor

PARTS = {"modules": dict, "nodes": list, "tensors": dict}
TENSORS = {"parameters": list, "buffers": list, "constants": dict, "frozen": list, "same": dict}


class Net(fx.GraphModule):
    """A network made of a graph; like every `torch.fx.GraphModule` it can be edited, and shows its ``code``."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Net":
        copied: Any = super().__deepcopy__(memo)
        for own, child in self._modules.items():
            if own not in copied._modules:  # a layer with two names, of which torch copies one
                copied.add_module(own, memo[id(child)])
        return copied


def net_from(graph: Any, state: Mapping[str, Tensor], source: Any = "The graph") -> nn.Module:
    """The network that `qprune.graph.saving.graph_of` described, without any class of its author's.

    Nothing in the data is run: layers and operations are looked up by name in `qprune.graph.operations`, and
    layers are as large as the tensors of the state, or there is an error. What a forward of the network costs in time
    and memory is the network's own affair.

    Args:
        graph: from a file; anything.
        state: the network's ``state_dict``; its tensors become those of the network.
        source: what it came from, for errors.

    Returns:
        a ``torch.fx.GraphModule`` in eval mode, with the module paths and state keys of the network it was made from.

    Raises:
        CheckpointError: if the data is no graph, names what is on no list, or does not fit the state.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> again = net_from(graph_of(net, torch.zeros(1, 2)), net.state_dict())
    """
    try:
        return _net_from(graph, state)
    except CheckpointError as error:
        raise CheckpointError(f"{source} holds a graph that cannot be opened: {error}") from error
    except Exception as error:  # torch and Python raise many kinds where names or types do not fit
        reason = f"{type(error).__name__}, {str(error)[:100]}"
        raise CheckpointError(
            f"{source} holds a graph that cannot be opened: it contradicts itself ({reason})"
        ) from error


def _net_from(graph: Any, state: Mapping[str, Tensor]) -> nn.Module:
    _check_table(graph, PARTS, "it")
    tensors = graph["tensors"]
    _check_table(tensors, TENSORS, "tensors")
    net = Net(nn.Module(), fx.Graph(), "Net")
    for place, described in graph["modules"].items():
        _add_module(net, path(place), described)
    _add_tensors(net, tensors, state)
    _check_state(net.state_dict(), state)
    net.load_state_dict(dict(state), assign=True)
    _settle(net, tensors)
    net.graph = _graph(net, graph["nodes"])
    return net.eval()


def _check_table(table: Any, kinds: Mapping[str, type], what: str) -> None:
    if type(table) is not dict or not all(type(table.get(key)) is kind for key, kind in kinds.items()):
        raise CheckpointError(f"{what} must be a table with {', '.join(kinds)}; received {shown(table)}")


def _add_module(net: nn.Module, place: str, described: Any) -> None:
    if type(described) is not dict:
        raise CheckpointError(f"{place} is described by {shown(described)}, and must be by a table")
    kind = described.get("type")
    if kind == "same":
        module = _module(net, path(described.get("as")))
    elif type(kind) is str and kind in CONTAINERS:
        module = CONTAINERS[kind]()
    else:
        module = make_layer(described)
    parent, own = _parent(net, place)
    parent.add_module(own, module)  # refuses the name of anything that a module has already


def _module(net: nn.Module, place: str) -> nn.Module:
    modules: Any = net
    for part in place.split("."):
        modules = modules._modules.get(part) if modules is not None else None
    if modules is None:
        raise CheckpointError(f"there is no layer {shown(place)} before it is needed")
    return modules


def _parent(net: nn.Module, place: str) -> tuple[nn.Module, str]:
    before, _, own = place.rpartition(".")
    parent = _module(net, before) if before else net
    if parent is not net and type(parent) not in CONTAINERS.values():
        raise CheckpointError(f"{shown(before)} is a layer, and holds no others")
    return parent, own


def _add_tensors(net: nn.Module, tensors: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    for kind in ("parameters", "buffers"):
        for place in tensors[kind]:
            parent, own = _parent(net, path(place))
            if place not in state:
                raise CheckpointError(f"there is no tensor for {place}")
            empty = torch.empty_like(state[place], device="meta")
            if kind == "parameters":
                parent.register_parameter(own, nn.Parameter(empty, empty.is_floating_point()))
            else:
                parent.register_buffer(own, empty)
    if tensors["constants"] and EXTRA not in net._modules:
        net.add_module(EXTRA, nn.Module())
    for own, value in tensors["constants"].items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"a constant is {shown(value)}, and must be a tensor")
        # not on the network itself, where a copy of a graph module would take it for a part of the state
        _module(net, EXTRA).register_buffer(name(own), value, persistent=False)


def _check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    if own.keys() != state.keys():
        differing = sorted(map(str, own.keys() ^ state.keys()))
        raise CheckpointError(
            f"its layers and its state do not have the same tensors: {shown(', '.join(differing[:3]))}"
        )
    for key, tensor in own.items():
        found = state[key]
        fits = found.dtype == tensor.dtype or (found.is_floating_point() and tensor.is_floating_point())
        if found.shape != tensor.shape or not fits:
            raise CheckpointError(
                f"{key} is {tuple(tensor.shape)} of {tensor.dtype} by its layer, and {tuple(found.shape)} of "
                f"{found.dtype} in its state"
            )


def _settle(net: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Give every compressor real accumulators, and every parameter the part it had."""
    for module in net.modules():
        if isinstance(module, Compressor):
            for key in module._non_persistent_buffers_set:
                module._buffers[key] = torch.zeros_like(module._buffers[key], device="cpu")  # type: ignore[arg-type]
            module.forget()
    parameters = dict(net.named_parameters(remove_duplicate=False))
    for key, first in tensors["same"].items():
        if parameters[key].shape != parameters[first].shape:
            raise CheckpointError(f"{key} and {first} have different shapes, and are said to be the same")
        before, _, own = key.rpartition(".")
        (_module(net, before) if before else net)._parameters[own] = parameters[first]
    for key in tensors["frozen"]:
        parameters[key].requires_grad_(False)


def _graph(net: nn.Module, described: Iterable[Any]) -> fx.Graph:
    graph = fx.Graph()
    nodes: list[fx.Node] = []
    for entry in described:
        if type(entry) not in (list, tuple) or len(entry) != 4:
            raise CheckpointError(
                f"a call is an operation, its target and two kinds of arguments; received {shown(entry)}"
            )
        if nodes and nodes[-1].op == "output":
            raise CheckpointError("there are calls after the output")
        nodes.append(_node(net, graph, nodes, *entry))
    if not nodes or nodes[-1].op != "output":
        raise CheckpointError("it has no output")
    return graph


def _node(
    net: nn.Module, graph: fx.Graph, nodes: list[fx.Node], op: Any, target: Any, args: Any, kwargs: Any
) -> fx.Node:
    if type(args) not in (list, tuple) or type(kwargs) is not dict:
        raise CheckpointError(f"arguments are a list and a table; received {shown(args)} and {shown(kwargs)}")
    positional = tuple(decode(value, nodes) for value in args)
    named = {name(key): decode(value, nodes) for key, value in kwargs.items()}
    known = type(op) is str and type(target) is str
    if known and op == "placeholder" and not args and not kwargs:
        if any(node.op != "placeholder" or node.target == target for node in nodes):
            raise CheckpointError(f"the input {shown(target)} is there twice, or comes after a call")
        return graph.placeholder(name(target))
    if known and op == "output" and len(args) == 1 and not kwargs:
        return graph.output(positional[0])
    if known and op == "get_attr" and not args and not kwargs and _is_tensor(net, path(target)):
        return graph.create_node(op, target)
    if known and op == "call_module" and leaf_type(_module(net, path(target))) is not None:
        return graph.create_node(op, target, positional, named)
    function = operation(target) if known and op == "call_function" else None
    if function is not None and _has_node((positional, named)):  # numbers alone could make one without end
        return graph.create_node(op, function, positional, named)
    raise CheckpointError(
        f"it asks for {shown(op)} of {shown(target)}, which is none of the calls that a file may make"
        f"{_of_before(op, target)}"
    )


def _of_before(op: Any, target: Any) -> str:
    # files held Python's functions and methods once
    python = op == "call_method" or str(target)[:100].split(".")[0] in ("torch", "functional", "getattr")
    return "; earlier versions of qprune made it: save the network again with this one" if python else ""


def _is_tensor(net: nn.Module, place: str) -> bool:
    before, _, own = place.rpartition(".")
    module = _module(net, before) if before else net
    return module._parameters.get(own) is not None or module._buffers.get(own) is not None


def _has_node(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_node, value.values()))
    return isinstance(value, fx.Node) or (isinstance(value, (list, tuple)) and any(map(_has_node, value)))
