"""A network of the user's own as plain data: the graph of its calls, which needs none of its classes to be opened.

It goes into the same file format as every checkpoint of qprune (`qprune.training.checkpoint`), not into safetensors:
that holds nothing but tensors and text, so the graph would have to be text within text; the checkpoint holds plain
types beside tensors, has a checksum over both, and needs no further dependency.
"""

import copy
import inspect
import logging
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from qprune.errors import CheckpointError, ShrinkError
from qprune.flow import shapes
from qprune.graph.arguments import encode
from qprune.graph.folding import EXTRA, add_extra
from qprune.graph.layers import describe_layer
from qprune.graph.opening import net_from
from qprune.graph.operations import CONTAINERS, DROPOUTS, is_layer, leaf_type, operation_name
from qprune.graph.teaching import switched_dropouts

log = logging.getLogger(__name__)
_WAY_OUT = "Keep its state_dict, and load that into a network made in the same way"


def graph_of(net: nn.Module, example: Any) -> dict[str, Any]:
    """The calls of a network's eval forward as plain data, from which `net_from` makes it again without its classes.

    The forward is followed as operations of ATen: layers that qprune and torch define are one call each, the user's own
    modules are what they compute. What is made of the data is then compared with the network on the example, to
    the bit. Forward hooks of layers, schedules of masks and quantizers, and what a layer was cut from are not kept.

    Args:
        net: any network of torch layers, swapped or shrunk or neither; it is not touched.
        example: an input of it: a tensor or a tuple of arguments. Further arguments of its forward stay at their
            defaults.

    Returns:
        tensors and plain types: ``"modules"`` by path, ``"nodes"`` in execution order, and ``"tensors"``, which
        parameters and buffers belong to no layer, are frozen, or the same as another.

    Raises:
        ShrinkError: if the forward depends on values, calls what is on no list, or computes something else once it is
            plain data; the call is named.

    Example:
        >>> graph_of(nn.Sequential(nn.ReLU()), torch.zeros(1, 2))["nodes"][1]
        ['call_module', '0', [{'node': 0}], {}]
    """
    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    inputs = tree_map_only(Tensor, _values, inputs)
    own = copy.deepcopy(net).cpu().eval()
    if own.state_dict().keys() != net.state_dict().keys():
        raise ShrinkError(f"A copy of {type(net).__name__} has another state than it has itself. {_WAY_OUT}.")
    if leaf_type(own) is not None:
        raise ShrinkError(f"A single {type(own).__name__} has no calls to save. Put it in nn.Sequential first.")
    graph = _Description(own, _trace(own, inputs)).described()
    _check(own, graph, inputs)
    return graph


@torch.no_grad()
def _values(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor.detach().cpu()


def _trace(net: nn.Module, inputs: tuple[Any, ...]) -> list[fx.Node]:
    switched = switched_dropouts(net, inputs, is_layer)
    try:
        nodes = _calls(net, inputs)
    except ShrinkError as error:
        raise ShrinkError(f"{type(net).__name__} cannot be saved as a graph: {error}. {_WAY_OUT}.") from error
    if switched is None:
        log.warning("%s computes otherwise in training; the file holds what it computes in eval", type(net).__name__)
    for node in nodes:
        if node.meta.get("dropout") in (switched or ()):
            _make_layer(net, node)
    return nodes


def _calls(net: nn.Module, inputs: tuple[Any, ...]) -> list[fx.Node]:
    from qprune.graph.following import follow  # with torch's compiler, which takes seconds to import

    try:
        return list(follow(net, inputs, is_layer).graph.nodes)
    except ShrinkError as error:
        try:
            return list(follow(net, inputs, is_layer, images=False, sides=False).graph.nodes)
        except ShrinkError:
            raise error from error.__cause__  # it is not the sizes


def _make_layer(net: nn.Module, node: fx.Node) -> None:
    """Make a layer of a functional dropout, which a file could not switch on again."""
    target: Any = node.target
    given = inspect.signature(target).bind(*node.args, **node.kwargs)
    given.apply_defaults()
    layer = DROPOUTS[target](given.arguments["p"])
    node.op, node.target = "call_module", add_extra(net, "dropout", layer.eval())
    node.args, node.kwargs = (given.arguments["input"],), {}


class _Description:
    """Describes the network and the calls of its forward as plain data."""

    def __init__(self, net: nn.Module, nodes: list[fx.Node]) -> None:
        self.net, self.nodes = net, nodes
        self.numbers = {node: number for number, node in enumerate(nodes)}
        self.state = net.state_dict(keep_vars=True)
        self.constants: dict[str, Tensor] = {}

    def described(self) -> dict[str, Any]:
        """The plain data that `graph_of` returns."""
        modules = dict(self._modules(self.net, "", {}))
        nodes = [self._node(node) for node in self.nodes]
        return {"modules": modules, "nodes": nodes, "tensors": self._tensors(modules)}

    def _modules(self, parent: nn.Module, prefix: str, seen: dict[nn.Module, str]) -> Iterator[tuple[str, Any]]:
        for name, module in parent._modules.items():  # named_children would leave out what is there twice
            if module is None:
                continue
            path = f"{prefix}{name}"
            if module in seen:
                yield path, {"type": "same", "as": seen[module]}
                continue
            seen[module] = path
            if leaf_type(module) is not None:
                yield path, describe_layer(module)
            else:
                kind = type(module).__name__
                yield path, {"type": kind if CONTAINERS.get(kind) is type(module) else "Module"}
                yield from self._modules(module, f"{path}.", seen)

    def _tensors(self, modules: Mapping[str, Any]) -> dict[str, Any]:
        loose = [path for path in self.state if not _is_inside(path, modules)]
        parameters = dict(self.net.named_parameters(remove_duplicate=False))
        first = {id(parameter): path for path, parameter in reversed(parameters.items())}
        return {
            "parameters": [path for path in loose if path in parameters],
            "buffers": [path for path in loose if path not in parameters],
            "constants": self.constants,
            "frozen": [path for path, parameter in parameters.items() if not parameter.requires_grad],
            "same": {path: first[id(p)] for path, p in parameters.items() if first[id(p)] != path},
        }

    def _node(self, node: fx.Node) -> list[Any]:
        if node.op == "placeholder":
            return [node.op, str(node.target), [], {}]
        try:
            arguments = [encode(list(node.args), self.numbers), encode(dict(node.kwargs), self.numbers)["dict"]]
        except ShrinkError as error:
            raise ShrinkError(f"{type(self.net).__name__} cannot be saved as a graph: {error}. {_WAY_OUT}.") from error
        return [node.op, self._target(node), *arguments]

    def _target(self, node: fx.Node) -> str:
        target: Any = node.target
        if node.op == "get_attr":
            return target if target in self.state else self._constant(target)
        if node.op == "call_function" and (target := operation_name(target)) is None:
            raise ShrinkError(
                f"{type(self.net).__name__} cannot be saved as a graph: it calls {_shown(node)}, which is none of the "
                f"operations that a file may name. {_WAY_OUT}."
            )
        return str(target)

    def _constant(self, path: str) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = operator.attrgetter(path)(self.net).detach()
        return f"{EXTRA}.{name}"


def _is_inside(path: str, modules: Mapping[str, Any]) -> bool:
    parts = path.split(".")
    owners = (".".join(parts[:count]) for count in range(1, len(parts)))
    return any(modules[owner]["type"] not in CONTAINERS for owner in owners if owner in modules)


def _shown(node: fx.Node) -> str:
    target: Any = node.target
    return str(target) if isinstance(target, torch._ops.OpOverload) else str(getattr(target, "__name__", target))


def _check(net: nn.Module, graph: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    """Refuse what cannot be opened again, or would be another network."""
    name, state = type(net).__name__, net.state_dict()
    try:
        again = net_from(graph, state, name)
    except CheckpointError as error:
        raise ShrinkError(f"{name} cannot be saved as a graph: {error}. {_WAY_OUT}.") from error
    random = _random_like(inputs)
    # not on zeros alone, nor on so many images alone
    for given in (inputs, random, _resized(random, 0, 0.5), _resized(random, 0, 2)):
        if _agree(net, again, given) is False:
            raise ShrinkError(
                f"{name} cannot be saved as a graph: its calls alone compute something else than its forward, which "
                f"may depend on values, on the number of images, or on hooks of its layers. {_WAY_OUT}."
            )
    if _agree(net, again, _resized(random, 2, 2)) is False:
        log.warning("%s decides by the size of its inputs; the file holds what it does for %s", name, shapes(inputs))


@torch.no_grad()
def _agree(net: nn.Module, again: nn.Module, given: tuple[Any, ...]) -> bool | None:
    """Whether both make the same bits of it; None if the network takes no such inputs."""
    try:
        before = tree_leaves(net(*copy.deepcopy(given)))
    except Exception:  # the network's own code
        return None
    try:
        after = tree_leaves(again(*copy.deepcopy(given)))
    except Exception:  # a size that is no longer what it was
        return False
    return len(before) == len(after) and all(map(_same_bits, before, after))


def _random_like(inputs: Any) -> Any:
    generator = torch.Generator().manual_seed(0)

    def random(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.dtype)

    return tree_map_only(Tensor, lambda each: random(each) if each.is_floating_point() else each, inputs)


def _resized(inputs: Any, first: int, factor: float) -> Any:
    """Inputs that are smaller or larger in the dimensions from ``first`` on; 0 means the first alone."""

    def resized(tensor: Tensor) -> Tensor:
        last = 1 if first == 0 else tensor.dim()
        for dim in range(first, min(last, tensor.dim())):
            wanted = torch.arange(max(1, int(tensor.shape[dim] * factor))) % max(1, tensor.shape[dim])
            tensor = tensor.index_select(dim, wanted)
        return tensor

    return tree_map_only(Tensor, resized, inputs)


def _same_bits(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return bool(type(one) is type(other) and one == other)
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and bool(((one == other) | ((one != one) & (other != other))).all())
