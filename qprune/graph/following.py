"""`follow`: the calls of a network's forward as a graph of ATen operations, in which nothing is overwritten.

The network runs once on tensors without data, whose batch, height and width are symbols; what runs is written down
below Python, where ``reshape``, ``flatten`` and ``view`` are one operation. Torch's functionalization makes new tensors
of what a forward overwrites. Layers, and a few functions, stay one call each.
"""

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import sympy  # type: ignore[import-untyped]  # torch depends on it
import torch
import torch.nn.functional as F
from attrs import evolve, field, frozen
from torch import _C, SymInt, Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.fx.traceback import get_current_meta, preserve_node_meta
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from qprune.errors import ShrinkError
from qprune.flow import LIBRARIES, line_of, meta_copy
from qprune.graph.folding import Spoilt, as_graph, hint
from qprune.graph.operations import DROPOUTS, outermost

# What torch would take apart into kernels of one device, or cannot compute with sides or batches that are symbols.
WHOLE_FUNCTIONS = (*DROPOUTS, F.interpolate, F.linear, F.scaled_dot_product_attention)
_DROPOUTS = tuple(DROPOUTS.values())
Shape = tuple[int, ...]


def follow(
    net: nn.Module,
    inputs: tuple[Tensor, ...],
    is_layer: Callable[[nn.Module], bool],
    *,
    images: bool = True,
    sides: bool = True,
) -> fx.GraphModule:
    """The calls of a forward, in execution order.

    Args:
        net: the network, on the CPU and in the mode that is to be followed. Its parameters are not touched.
        inputs: of its forward, tensors alone, of which shapes and dtypes matter; what it is not given stays at its
            default.
        is_layer: whether a module is one call, and is not looked into.
        images: whether their number, the first dimension, may be another in each call of the graph.
        sides: whether the dimensions behind the second may be others, unless the forward demands these.

    Returns:
        a graph over the modules, parameters and buffers of ``net``: ``call_module`` for layers, ``call_function`` for
        operations of ATen, for a few functions of torch and for arithmetic on sizes.

    Raises:
        ShrinkError: the reason alone, if the forward reads values, overwrites what the network keeps, or fails, where
            the line of code is named; if it is given anything but tensors.

    Example:
        >>> graph = follow(nn.Sequential(nn.ReLU(), nn.Flatten()), (torch.zeros(2, 3, 5, 7),), lambda layer: False)
        >>> [str(call.target) for call in graph.graph.nodes if call.op == "call_function"]
        ['aten.relu.default', 'aten.flatten.using_ints']
    """
    _check_tensors(inputs)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    run = _Run(net, is_layer, inputs)
    mode = FakeTensorMode(shape_env=run.sizes.env, allow_non_fake_inputs=True)
    fixed = {name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in state.items()}
    tensors = [run.sizes.of(mode, x, images, sides) for x in inputs]
    structure: list[Any] = []

    def forward(held: dict[str, Tensor], *given: Tensor) -> list[Any]:
        with _holding(net, {id(state[name]): tensor for name, tensor in held.items()}):
            results, form = tree_flatten(net(*given))
        structure[:] = [[None if isinstance(each, Tensor) else each for each in results], form]
        return [each for each in results if isinstance(each, Tensor)]

    try:
        with torch.no_grad(), mode, enable_python_dispatcher(), preserve_node_meta(), run:
            traced = make_fx(functionalize(forward, remove="mutations"), _allow_non_fake_inputs=True)(fixed, *tensors)
    except ShrinkError:
        raise
    except Exception as error:  # the network's own code ran, on tensors without values
        reason = _reason(net, inputs, error) if images else "its forward cannot be followed without values"
        raise ShrinkError(f"{reason} (in that of {run.running()}{line_of(error)})") from error
    if run.sizes.fix_images():
        raise ShrinkError("its forward fixes the number of images, and must take any")
    return as_graph(net, traced, tuple(state), _names(net, inputs), run.calls, *structure)


@contextmanager
def _holding(net: nn.Module, tensors: dict[int, Tensor]) -> Iterator[None]:
    """Other tensors in place of a network's parameters and buffers, however many names these have."""
    tables: list[Any] = [table for module in net.modules() for table in (module._parameters, module._buffers)]
    before = [dict(table) for table in tables]
    for table in tables:
        table.update({name: tensors[id(held)] for name, held in table.items() if held is not None})
    try:
        yield
    finally:
        for table, held in zip(tables, before, strict=True):
            table.update(held)


def _check_tensors(inputs: tuple[Any, ...]) -> None:
    other = next((type(x).__name__ for x in inputs if not isinstance(x, Tensor)), None)
    if other is not None:
        raise ShrinkError(
            f"it is given a {other} beside tensors, which a file would hold as it is now. Let its forward have a "
            "default for that, and give tensors alone"
        )


def _names(net: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """What the forward calls its arguments."""
    bound = inspect.signature(net.forward).bind(*inputs).arguments
    named = len(bound) == len(inputs) and not any(isinstance(value, tuple) for value in bound.values())
    return list(bound) if named else [f"input_{number}" for number in range(len(inputs))]


def _reason(net: nn.Module, inputs: tuple[Tensor, ...], error: Exception) -> str:
    if {kind.__name__ for kind in type(error).__mro__} & _BY_VALUES:
        return "its forward decides by values of a tensor"
    several = tuple(torch.cat([x, x]) if x.dim() else x for x in inputs)
    for given, words in (
        (inputs, "its forward fails on the example"),
        (several, "its forward takes no other number of images than the example has, and must take any"),
    ):
        try:
            with torch.no_grad():
                copy.deepcopy(net)(*copy.deepcopy(given))
        except Exception:  # the network's own code
            return words
    return "its forward cannot be followed without values"


_BY_VALUES = {"DataDependentOutputException", "GuardOnDataDependentSymNode", "DynamicOutputShapeException"}


@frozen(eq=False)
class Kept:
    """A layer or a function that stays one call."""

    target: str | Callable[..., Any]  # path of the layer, or the function
    leaves: tuple[Any, ...]  # its arguments without their structure; for tensors and sizes their type
    form: Any = field(repr=False)  # their structure
    shape: tuple[Any, ...] = ()  # of the result
    dtype: torch.dtype = torch.float32  # of the result

    def filled(self, tensors: Sequence[Any], sizes: Sequence[Any]) -> list[Any]:
        """The arguments without their structure, with these tensors and sizes in their places."""
        ahead = {Tensor: iter(tensors), SymInt: iter(sizes)}
        return [next(ahead[leaf]) if leaf in ahead else leaf for leaf in self.leaves]


_present: ContextVar["_Run"] = ContextVar("_present")


# stands for a call while a network is followed; it knows the shape of the result, and computes nothing
_LIBRARY = torch.library.Library("qprune", "DEF")
_LIBRARY.define("kept(Tensor[] tensors, SymInt[] sizes, int number) -> Tensor")


@torch.library.register_fake("qprune::kept", lib=_LIBRARY)
def _result(tensors: Sequence[Tensor], sizes: Sequence[int], number: int) -> Tensor:
    call = _present.get().calls[number]
    return tensors[0].new_empty(call.shape, dtype=call.dtype)


class _Run(TorchFunctionMode):
    """Keeps layers and some functions whole while a network runs."""

    def __init__(self, net: nn.Module, is_layer: Callable[[nn.Module], bool], inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.net, self.sizes = net, _Sizes(inputs)
        self.calls: list[Kept] = []
        self.inside: list[str] = []  # paths of the modules whose forward is running
        shadow = meta_copy(net)
        for ours, theirs in zip(net.modules(), shadow.modules(), strict=True):
            theirs.training = ours.training
        self.layers = dict(outermost(net, is_layer))
        self.shadows = {path: shadow.get_submodule(path) for path in self.layers}
        self.handles: list[Any] = []

    def __enter__(self) -> "_Run":
        self.token = _present.set(self)
        for path, layer in self.layers.items():
            # what torch calls in place of forward and hooks, if it is there
            layer._compiled_call_impl = self._calling(path, layer)
        for path, module in self.net.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # compiled code takes no hooks
                self.handles.append(module.register_forward_pre_hook(self._entering(path)))
                self.handles.append(module.register_forward_hook(self._leaving))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self.handles:
            handle.remove()
        for layer in self.layers.values():
            del layer._compiled_call_impl
        _present.reset(self.token)

    def _entering(self, path: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.inside.append(path)
            get_current_meta()["custom"] = {"path": path}  # torch notes it with each call

        return enter

    def _leaving(self, *_: Any) -> None:
        self.inside.pop()
        get_current_meta()["custom"] = {"path": self.inside[-1] if self.inside else ""}

    def running(self) -> str:
        """The class of the module whose forward is running."""
        return type(self.net.get_submodule(self.inside[-1] if self.inside else "")).__name__

    def _calling(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return self._keep(path, self.shadows[path].forward, layer.forward, arguments, options)

        return call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        get_current_meta()["custom"] = {"path": self.inside[-1] if self.inside else "", "line": _running_line()}
        if func in WHOLE_FUNCTIONS or (func is F.pad and _pads_with_what_is_there(*args, **(kwargs or {}))):
            return self._keep(func, func, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _keep(self, target: Any, measured: Any, run: Any, arguments: Any, options: Any) -> Any:
        leaves, form = tree_flatten((arguments, options))
        with _C.DisableTorchFunction():  # what is asked here is nothing that the network does
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            made = self.sizes.measure(measured, leaves, form) if tensors else None
            drops = isinstance(self.layers.get(target), _DROPOUTS) or target in DROPOUTS
            if made is not None and (made.shared is None or made.written is not None or drops):
                return self._kept(target, leaves, form, made, self._in_place(target, arguments, options))
        return run(*arguments, **options)  # several results, or a view: what it does is written down instead

    def _kept(self, target: Any, leaves: Sequence[Any], form: Any, made: "_Measured", in_place: bool) -> Tensor:
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        result = self._call(target, leaves, form, made)
        if made.shared is not None and (made.written is not None or in_place):
            return tensors[made.shared].copy_(result)
        if made.written is not None:  # nobody is to read that again
            spoilt, name = tensors[made.written], target if isinstance(target, str) else target.__name__
            form = tree_flatten(((spoilt,), {}))[1]
            spoilt.copy_(self._call(Spoilt(name), [spoilt], form, evolve(made, shape=spoilt.shape)))
        return result

    def _call(self, target: Any, leaves: Sequence[Any], form: Any, made: "_Measured") -> Tensor:
        given = tuple(kind if (kind := _kind(leaf)) is not None else leaf for leaf in leaves)
        self.calls.append(Kept(target, given, form, made.shape, made.dtype))
        tensors, sizes = ([leaf for leaf in leaves if isinstance(leaf, kind)] for kind in (Tensor, SymInt))
        return torch.ops.qprune.kept.default(tensors, sizes, len(self.calls) - 1)

    def _in_place(self, target: Any, arguments: Any, options: Any) -> bool:
        if target in self.layers:
            return bool(getattr(self.layers[target], "inplace", False))
        if not inspect.isfunction(target):  # one of torch's core, which has no signature
            return False
        return bool(inspect.signature(target).bind(*arguments, **options).arguments.get("inplace", False))


def _pads_with_what_is_there(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> bool:
    """Whether `F.pad` would be taken apart into copies of parts; with a constant it is one operation."""
    return mode != "constant"


def _running_line() -> tuple[str, int] | None:
    """File and number of the line in the network's own code that runs; None if all of that is torch's."""
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != __file__:
        if not frame.f_code.co_filename.startswith(LIBRARIES):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def _kind(leaf: Any) -> type | None:
    return next((kind for kind in (Tensor, SymInt) if isinstance(leaf, kind)), None)


@frozen(eq=False)
class _Measured:
    """The result of a call."""

    shape: Any  # its shape, with symbols
    dtype: torch.dtype
    shared: int | None  # which of the tensors it is given lies in the same memory; None if none does
    written: int | None  # which of them it overwrites; None if it overwrites none


def _memory(result: Tensor, given: Sequence[Tensor]) -> tuple[int | None, int | None]:
    storage = result.untyped_storage()._cdata
    shared = (place for place, x in enumerate(given) if x.untyped_storage()._cdata == storage)
    written = (place for place, x in enumerate(given) if x._version > 0)
    return next(shared, None), next(written, None)


class _Sizes:
    """Symbols for sizes that may be others in another call, each known at two examples.

    A layer's result has the size of its input where both examples say so, a fixed one where they agree, and else a
    symbol of its own. Torch's own formulas for the sizes behind convolutions take ten times as long.
    """

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        self.batch = next((len(each) for each in inputs if each.dim()), 0)
        self.env = ShapeEnv(duck_shape=False)
        self.others: dict[Any, Any] = {}
        self.images: list[Any] = []  # the symbols of their number

    def fix_images(self) -> bool:
        """Whether the forward allows but one number of images."""
        return any(not self.env.replace(each.node.expr).free_symbols for each in self.images)

    def of(self, mode: FakeTensorMode, x: Tensor, images: bool, sides: bool) -> Tensor:
        """An input whose batch and sides are symbols, if they are free."""
        open_ = [
            sides and side > 1 if dim > 1 else images and dim == 0 and side == self.batch
            for dim, side in enumerate(x.shape)
        ]
        kinds = [DimDynamic.DYNAMIC if each else DimDynamic.STATIC for each in open_]
        # one image would be taken for a fixed number of them, which broadcasts
        shape = [
            2 * side if each and dim == 0 else side for dim, (each, side) in enumerate(zip(open_, x.shape, strict=True))
        ]
        context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
        source = ConstantSource(f"input_{id(x)}")
        fake = mode.from_tensor(x.new_empty(shape), symbolic_context=context, source=source)
        sizes: list[Any] = list(fake.shape)
        if open_ and open_[0]:
            self.images.append(sizes[0])
        self.others |= {size.node.expr: sympy.Integer(2 * hint(size)) for size in sizes if isinstance(size, SymInt)}
        return fake

    def _other(self, size: Any) -> Any:
        if not isinstance(size, SymInt):
            return size
        known = size.node.expr.xreplace(self.others)
        return int(known) if known.is_Integer else None

    def measure(self, run: Any, leaves: Sequence[Any], form: Any) -> "_Measured | None":
        """What a call gives; None if that is not one tensor."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        one, given = self._at(hint, run, leaves, form)
        if not isinstance(one, Tensor):
            return None
        try:
            other: Shape | None = tuple(self._at(self._other, run, leaves, form)[0].shape)
        except Exception:  # some sides are not known at another example, or another is not allowed
            other = None
        like = next((x for x in tensors if x.dim() == one.dim()), tensors[0])
        shape = [self._size(dim, n, None if other is None else other[dim], like) for dim, n in enumerate(one.shape)]
        return _Measured(shape, one.dtype, *_memory(one, given))

    def _at(
        self, example: Callable[[Any], Any], run: Any, leaves: Sequence[Any], form: Any
    ) -> tuple[Any, list[Tensor]]:
        def empty(x: Any) -> Any:
            if isinstance(x, Tensor):
                return torch.empty([example(size) for size in x.shape], dtype=x.dtype, device="meta")
            return example(x)

        with (
            _disable_current_modes(),
            temporarily_clear_interpreter_stack(),
            no_python_dispatcher(),
            _C.DisableTorchFunction(),
        ):
            filled = [empty(leaf) for leaf in leaves]
            arguments, options = tree_unflatten(filled, form)
            return run(*arguments, **options), [leaf for leaf in filled if isinstance(leaf, Tensor)]

    def _size(self, dim: int, one: int, other: int | None, like: Tensor) -> Any:
        if one == other:
            return one
        if dim < like.dim() and (hint(like.shape[dim]), self._other(like.shape[dim])) == (one, other):
            return like.shape[dim]
        source = ConstantSource(f"size_{len(self.others)}")
        symbol = self.env.create_symbol(one, source=source, dynamic_dim=DimDynamic.DYNAMIC)
        if other is not None and isinstance(symbol, sympy.Symbol):
            self.others[symbol] = sympy.Integer(other)
        return self.env.create_symintnode(symbol, hint=one, source=source)
