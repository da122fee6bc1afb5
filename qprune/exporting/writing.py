"""A network as an ONNX model: dropped channels gone, normalizations folded, integers where there are any."""

import inspect
import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import SymInt, Tensor, fx, nn
from torch.utils._pytree import GetAttrKey, MappingKey, tree_flatten_with_path, tree_leaves, tree_map

from qprune.errors import ExportError, ShrinkError
from qprune.exporting.by_torch import lower_by_torch
from qprune.exporting.functions import call_in_words, lower_function
from qprune.exporting.layers import is_layer, lower_layer
from qprune.exporting.lowering import Layer, Lowering
from qprune.exporting.no_way import NeverError, NoWayError
from qprune.exporting.packages import import_onnx
from qprune.exporting.probe import saturates
from qprune.exporting.values import Codes, Other, Product, Real, Size, array
from qprune.graph import hint, place_of
from qprune.shrinking import shrink_with_facts

STORAGES = ("int8", "int4")


@frozen(eq=False)
class Written:
    """An ONNX model, and what it was made of."""

    model: Any = field(repr=False)  # onnx.ModelProto
    net: nn.Module = field(repr=False)  # the network that was written, shrunk and folded, in eval mode
    layers: tuple[Layer, ...]  # convolutions and linear layers, in execution order
    # for each site with an active quantizer the tensor of its integers in the model
    quantized: dict[str, Codes] = field(repr=False)
    resizable: bool = False  # whether height and width are free

    def with_outputs(self, names: Iterable[str], *, real: bool = False) -> bytes:
        """The model with further tensors of it among its outputs: of integers, or of real numbers."""
        onnx = import_onnx()
        copied = onnx.ModelProto()
        copied.CopyFrom(self.model)
        kind = onnx.TensorProto.FLOAT if real else onnx.TensorProto.UINT8
        copied.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in names)
        return bytes(copied.SerializeToString())


def write_network(net: nn.Module, example: Any, *, storage: str = "int8", dynamic_size: bool | None = None) -> Written:
    """Write a network as an ONNX model of standard operators.

    Dropped channels are taken out and normalizations folded first, see `qprune.shrink`. A quantizer becomes Quantize
    and Dequantize, with a Clip of the integers between them below 8 bits or behind a rectifier; a layer of integer
    weights that reads integers has them around it, which runtimes fuse to one integer layer, or sums integers by
    ConvInteger and MatMulInteger where no quantizer follows. What moves numbers about, as pooling for a maximum does,
    moves integers.

    Args:
        net: any network. It is not touched.
        example: an input of it: a tensor or a tuple of them. Its values do not matter.
        storage: ``"int8"``, or ``"int4"``: weights of up to 4 bits take half the bytes, and compute as floats.
        dynamic_size: whether height and width may differ from the example's; by default where outputs have them.

    Raises:
        ExportError: if the packages are missing, or the network calls what there is no way to write; it is named.

    Example:
        >>> write_network(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 5, 7)).layers[0].reason
        'its weights have no quantizer'
    """
    if storage not in STORAGES:
        raise ExportError(f'storage must be "int8" or "int4"; received {storage!r}.')
    low = Lowering(signed=not saturates(), packed=storage == "int4")
    return Walk(*followed(net, example, sides=dynamic_size is not False), low, dynamic_size).written()


def followed(
    net: nn.Module, example: Any, *, images: bool = True, sides: bool = True
) -> tuple[nn.Module, list[fx.Node], tuple[Any, ...]]:
    """The network that is written, shrunk and folded, its calls, and its inputs."""
    from qprune.graph.following import follow  # with torch's compiler, which takes seconds to import

    inputs = example if isinstance(example, tuple) else (example,)
    _check_dtypes(net, inputs)
    inputs = tree_map(lambda x: torch.zeros(x.shape, dtype=x.dtype) if isinstance(x, Tensor) else x, inputs)
    try:
        small = shrink_with_facts(net, inputs, fold=True).net.cpu()
        small = nn.Sequential(small) if is_layer(small) else small
        return small, list(follow(small, inputs, is_layer, images=images, sides=sides).graph.nodes), inputs
    except (ShrinkError, ExportError) as error:
        reason = str(error).rstrip(".")
        raise ExportError(f"{type(net).__name__} cannot be written as an ONNX file: {reason}.") from error


def _check_dtypes(net: nn.Module, inputs: tuple[Any, ...]) -> None:
    held = itertools.chain(net.named_parameters(), net.named_buffers())
    floats = ((name, tensor.dtype) for name, tensor in held if tensor.is_floating_point())
    given = (("an input", x.dtype) for x in inputs if isinstance(x, Tensor))
    for name, dtype in (*floats, *given):
        if dtype != torch.float32:
            raise ExportError(
                f"{type(net).__name__} cannot be written as an ONNX file: {name} is {dtype}, and a file computes in "
                "float32. Export net.float(), with inputs of float32."
            )


class Walk:
    """One network, with its calls, on its way into a file; ``dynamic`` as for `write_network`.

    If ``watching``, the result of every layer becomes a tensor of real numbers, known by the layer's path and the
    number of the call.
    """

    def __init__(
        self, net: nn.Module, nodes: Sequence[fx.Node], inputs: tuple[Any, ...], low: Lowering, dynamic: bool | None,
        *, watching: bool = False,
    ) -> None:  # fmt: skip
        self.net, self.nodes, self.low, self.watching = net, nodes, low, watching
        self.watched: dict[tuple[str, int], str] = {}
        self.values: dict[fx.Node, Any] = {}
        self.shapes = {node: shape for node in nodes if (shape := _example(node)) is not None}
        for node in nodes:
            if node.op == "placeholder":
                low.graph.unique(str(node.target))  # nothing else may have the name of an input
        self.outputs = [low.graph.unique(name) for name in _output_names(nodes[-1].args[0])]
        self.resizable = self._is_resizable() if dynamic is None else dynamic

    def _is_resizable(self) -> bool:
        outputs = self.nodes[-1].all_input_nodes
        return all(len(self.shapes.get(node, ())) == 4 for node in outputs)

    def written(self) -> Written:
        """Write it."""
        for node in self.nodes:
            if node.op == "output":
                self._outputs(node)
            else:
                value = getattr(self, f"_{node.op}")(node)
                several = len(node.users) > 1 and isinstance(value, (Real, Product))
                self.values[node] = self.low.settled(value) if several else value
        return Written(
            self.low.graph.model(), self.net, tuple(self.low.layers), dict(self.low.quantized), self.resizable
        )

    def _symbols(self, shape: Sequence[int]) -> list[str | None]:
        sides: list[str | None] = (
            ["height", "width"] if self.resizable and len(shape) == 4 else [None] * (len(shape) - 2)
        )
        return ["batch", None, *sides][: len(shape)]

    def _placeholder(self, node: fx.Node) -> Any:
        if node not in self.shapes:
            raise ExportError(f"The input {node.target} is no tensor, and cannot be one of an ONNX file.")
        self.low.graph.input(str(node.target), self.shapes[node], self._symbols(self.shapes[node]))
        return Real(str(node.target))

    def _get_attr(self, node: fx.Node) -> Any:
        owner, _, name = str(node.target).rpartition(".")
        tensor = getattr(self.net.get_submodule(owner), name)
        name = self.low.graph.constant(array(tensor), str(node.target))
        return Real(name) if tensor.dtype == torch.float32 else Other(name, tensor.dtype)

    def _call_module(self, node: fx.Node) -> Any:
        layer = self.net.get_submodule(str(node.target))
        shapes = [self.shapes.get(given, ()) for given in node.all_input_nodes]
        values = _in_order(layer, self._arguments(node.args), self._arguments(node.kwargs))
        try:
            value = lower_layer(self.low, str(node.target), layer, values, shapes)
        except ExportError as error:
            raise self._refusal(str(error)) from error
        except NoWayError as error:
            kind, reason = type(layer).__name__, f": {error}" if str(error) else ""
            told = f"{node.target} is a {kind} for which there is no way into an ONNX file{reason}"
            raise self._refusal(told) from error
        return self._watch(node, value) if self.watching else value

    def _watch(self, node: fx.Node, value: Any) -> Real:
        path = str(node.target)
        call = sum(path == each for each, _ in self.watched)
        name = self.low.graph.node("Identity", [self.low.real(value)], f"{path}.watched")
        self.watched[path, call] = name
        return Real(name)

    def _call_function(self, node: fx.Node) -> Any:
        if node.target is torch.ops.aten.sym_size.int:
            return self._size(*node.args)  # type: ignore[arg-type]
        args, kwargs = self._arguments(node.args), self._arguments(node.kwargs)
        if "input" in kwargs:  # torch's name of the first one
            args = (kwargs.pop("input"), *args)
        before = len(self.low.graph.nodes)
        try:
            return self._in_its_way(node, args, kwargs)
        except NeverError as error:
            raise self._refused_call(node, str(error)) from error
        except NoWayError as error:
            reason = str(error)
            del self.low.graph.nodes[before:]
        try:
            return lower_by_torch(self.low, node, self.values)
        except NoWayError as error:
            raise self._refused_call(node, "; ".join(filter(None, [reason, str(error)]))) from error

    def _refused_call(self, node: fx.Node, reason: str) -> ExportError:
        path, line = place_of(node)
        call = call_in_words(node.target, self._arguments(node.args), self._arguments(node.kwargs))
        return self._refusal(f"{path}{call} is a call for which there is no way into an ONNX file: {reason}{line}")

    def _in_its_way(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        made = node.meta.get("val")
        if isinstance(made, Tensor) and made.dtype != torch.float32 and node.target is not operator.getitem:
            raise NoWayError(f"it makes {made.dtype}")
        shape = next((self.shapes[each] for each in node.all_input_nodes if each in self.shapes), ())
        value = lower_function(self.low, node.name, node.target, args, kwargs, shape)
        if isinstance(value, list):
            read = [int(user.args[1]) for user in node.users if user.target is operator.getitem]  # type: ignore[arg-type]
            if max(read, default=0) >= len(value):
                raise NoWayError("its other results are read, too")
        return value

    def _size(self, node: fx.Node, dim: int) -> Any:
        made = node.meta["val"].shape[dim]
        if not isinstance(made, SymInt):
            return made
        source = self.low.name(self.values[node])
        return Size(self.low.graph.node("Shape", [source], f"{node.name}.size", start=dim, end=dim + 1))

    def _arguments(self, arguments: Any) -> Any:
        return fx.node.map_arg(arguments, lambda node: self.values[node])

    def _refusal(self, reason: str) -> ExportError:
        return ExportError(
            f"{type(self.net).__name__} cannot be written as an ONNX file: {reason}. Write that part with other "
            "operations; what a file can hold is said in docs/reference/export.md."
        )

    def _outputs(self, node: fx.Node) -> None:
        for name, each in zip(self.outputs, tree_leaves(node.args[0]), strict=True):
            if not isinstance(each, fx.Node) or each not in self.shapes:
                raise ExportError(f"The result {name} is no tensor, and cannot be one of an ONNX file.")
            shape = self.shapes[each]
            value = self.values[each]
            self.low.graph.same(self.low.of_its_dtype(value), name)
            dtype = value.dtype if isinstance(value, Other) else torch.float32
            self.low.graph.output(name, shape, self._symbols(shape), torch.empty(0, dtype=dtype).numpy().dtype)


def _output_names(result: Any) -> list[str]:
    """What the forward calls its results: keys of dictionaries, fields of named tuples."""
    names = []
    for keys, _ in tree_flatten_with_path(result)[0]:
        named = any(isinstance(key, (MappingKey, GetAttrKey)) for key in keys)
        names.append(".".join(_key(key) for key in keys) if named else "output")
    return names


def _key(key: Any) -> str:
    return key.name if isinstance(key, GetAttrKey) else str(key.key if isinstance(key, MappingKey) else key.idx)


def _in_order(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Arguments of a layer in their order, ``(x,)`` for ``layer(input=x)``."""
    if not kwargs:
        return args
    forwards = [inspect.signature(vars(kind)["forward"]) for kind in type(layer).__mro__ if "forward" in vars(kind)]
    # a host takes whatever its torch layer does, and only that one says in which order
    named = next(each for each in forwards if not any(p.kind in _ANY for p in each.parameters.values()))
    return tuple(named.bind(layer, *args, **kwargs).args[1:])


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _example(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of a call's result in the example, where there are twice as many images."""
    made = node.meta.get("val")
    if not isinstance(made, Tensor):
        return None
    return tuple(map(hint, made.shape))
