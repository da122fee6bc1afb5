"""Calls that overwrite tensors become calls that make new ones: in a file there is no memory to overwrite.

`torch.fx` writes down the calls of a forward, and not what they do to memory: behind ``y.relu_()`` whoever reads ``y``,
or a view of it, reads what was made there. The calls run once, on which tensors lie in the same memory and who writes
into it is seen; then every reader is given the call that made what it reads.
"""

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves, tree_map_only

from qprune.errors import ExportError

CONSTANT = "_tensor_constant"  # how torch.fx calls tensors that a forward makes anew each time
_SIZES = ("size", "dim", "numel")


def without_overwriting(net: nn.Module, nodes: list[fx.Node], inputs: tuple[Any, ...]) -> list[fx.Node]:
    """The same calls, in which every reader of an overwritten tensor is given the call that overwrote it.

    Views of the tensor that were made before are made again. The calls keep their functions, ``relu_`` say, of which
    only the results count from now on; those whose results nobody reads are left out.

    Args:
        net: the network.
        nodes: its calls, of which the graph is changed.
        inputs: of the network, as an example.

    Raises:
        ExportError: the reason alone, if a part of a tensor is overwritten and the whole is read again, or the network
            overwrites a parameter or a buffer; both are named.

    Example:
        >>> class Net(nn.Module):
        ...     def forward(self, x):
        ...         return x.relu_() + x
        >>> nodes = symbolic_calls(Net(), 1)
        >>> without_overwriting(Net(), nodes, (torch.zeros(1, 2),))[2].args
        (relu_, relu_)
    """
    graph = nodes[0].graph
    watching = _Watching(net, graph=graph)
    with torch.inference_mode(False), torch.no_grad():  # inference mode counts no writes
        watching.run(*tree_map_only(Tensor, torch.clone, inputs))
    rewiring = _Rewiring(graph, watching.seen)
    for node in nodes:
        rewiring.give_present_values(node)
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    return list(graph.nodes)


@frozen
class _Region:
    """Where a tensor lies in memory."""

    storage: StorageWeakRef
    room: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "_Region":
        storage = tensor.untyped_storage()
        return cls(
            storage=StorageWeakRef(storage),  # keeps no memory, and nobody else gets its number meanwhile
            room=storage.nbytes() // tensor.itemsize,
            dtype=tensor.dtype,
            offset=int(tensor.storage_offset()),
            size=tuple(tensor.shape),
            stride=tensor.stride(),
        )

    def overlaps(self, other: "_Region") -> bool:
        """Whether both hold a number in common."""
        if self.storage != other.storage or self == other:
            return self.storage == other.storage
        return self.dtype != other.dtype or bool((self._cells() & other._cells()).any())

    def _cells(self) -> Tensor:
        cells = torch.zeros(self.room, dtype=torch.bool)
        sides = [1 if stride == 0 else side for side, stride in zip(self.size, self.stride, strict=True)]
        cells.as_strided(sides, self.stride, self.offset).fill_(True)
        return cells


@frozen
class _Seen:
    """What one call did to memory.

    Attributes:
        made: where its results lie.
        written: what it wrote into.
        handed: whether its result is what it wrote into.
    """

    made: tuple[_Region, ...] = ()
    written: tuple[_Region, ...] = ()
    handed: bool = False


class _Watching(fx.Interpreter):
    """Runs calls, and notes where the results lie and what was written into."""

    def __init__(self, net: nn.Module, graph: fx.Graph) -> None:
        super().__init__(net, graph=graph)
        self.seen: dict[fx.Node, _Seen] = {}

    def run_node(self, n: fx.Node) -> Any:
        given = _tensors(self.fetch_args_kwargs_from_env(n))
        before = [(each, each._version, _Region.of(each)) for each in given]
        result = super().run_node(n)
        made = tuple(map(_Region.of, _tensors(result)))
        written = [region for each, version, region in before if each._version != version]
        # all views of one tensor count their writes together: the one that is handed back is the one written into
        handed = [region for region in made if region in written]
        others = [region for region in written if all(region.storage != each.storage for each in handed)]
        self.seen[n] = _Seen(made, (*handed, *others), isinstance(result, Tensor) and bool(handed))
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.layout == torch.strided]


@frozen(eq=False)
class _Write:
    """One overwriting: where, by which call, and whether that hands back what lies there now."""

    region: _Region
    by: fx.Node
    handed: bool


@frozen(eq=False)
class _Rewiring:
    """Gives readers what they read, call by call.

    Attributes:
        graph: the calls.
        seen: what each of them does to memory.
        writes: so far, in their order.
        since: how many writes were older than what a call made.
        again: calls that were made again as others.
    """

    graph: fx.Graph
    seen: dict[fx.Node, _Seen]
    writes: list[_Write] = field(factory=list)
    since: dict[fx.Node, int] = field(factory=dict)
    again: dict[fx.Node, fx.Node] = field(factory=dict)

    def give_present_values(self, node: fx.Node) -> None:
        """Let a call read what its arguments hold when it runs, and note what it overwrites itself."""
        if not _reads_sizes(node):
            node.args, node.kwargs = fx.node.map_arg(
                (node.args, dict(node.kwargs)), lambda given: self._present(given, node)
            )
        if "out" in node.kwargs:
            node.kwargs = {name: value for name, value in node.kwargs.items() if name != "out"}
        seen = self.seen[node]
        for region in seen.written:
            self._refuse_state(region, node)
            self.writes.append(_Write(region, node, seen.handed))
        self.since[node] = 0 if node.op == "get_attr" else len(self.writes)  # a constant was there before

    def _present(self, node: fx.Node, reader: fx.Node) -> fx.Node:
        """The call whose result is what lies now where a call's result lay."""
        node = self.again.get(node, node)
        made = self.seen[node].made
        later = [w for w in self.writes[self.since[node] :] if any(w.region.overlaps(each) for each in made)]
        if not later:
            return node
        if later[-1].handed and made == (later[-1].region,):
            return later[-1].by
        if not self._is_view(node):
            raise ExportError(_refusal(later[-1].by, node, reader))
        return self._made_again(node, reader)

    def _is_view(self, node: fx.Node) -> bool:
        places = {region.storage for region in self.seen[node].made}
        given = {region.storage for each in node.all_input_nodes for region in self.seen[each].made}
        return places <= given and not self.seen[node].written

    def _made_again(self, view: fx.Node, reader: fx.Node) -> fx.Node:
        fresh = {each: self._present(each, reader) for each in view.all_input_nodes}
        with self.graph.inserting_before(reader):
            copied = self.graph.node_copy(view, lambda each: fresh[each])
        self.seen[copied], self.since[copied] = self.seen[view], len(self.writes)
        self.again[view] = copied
        return copied

    def _refuse_state(self, region: _Region, writer: fx.Node) -> None:
        for node, seen in self.seen.items():
            held = node.op == "get_attr" and not str(node.target).startswith(CONSTANT)
            if held and any(region.overlaps(each) for each in seen.made):
                raise ExportError(
                    f"{_named(writer)} overwrites {node.target}, which the network keeps from one forward to the next; "
                    "a file keeps nothing. Compute with a new tensor instead"
                )


def _reads_sizes(node: fx.Node) -> bool:
    # they stay what they are, and nothing is to be made again for them
    return node.target in _SIZES or (node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device"))


def _named(node: fx.Node) -> str:
    if node.op in ("call_module", "placeholder", "get_attr"):
        return str(node.target)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return "x[...] = y" if name == "setitem" else f"{name}()"


def _refusal(writer: fx.Node, read: fx.Node, reader: fx.Node) -> str:
    last = "the network returns" if reader.op == "output" else f"{_named(reader)} reads"
    return (
        f"{_named(writer)} overwrites what {_named(read)} made, which {last} again, and a file has no memory to "
        "overwrite. Make a new tensor and read that one: without inplace=True or a function that ends in _, and with "
        "torch.cat for parts of a tensor"
    )
