"""One traced picture of a network: which layer feeds which, with which shapes, in which order.

The network runs once on the meta device, where tensors have shapes and no data, and every layer and tensor function
that runs is written down. Running it, rather than analysing its source, follows any Python control flow and knows every
shape.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from qprune.errors import PlanError
from qprune.layers import Aligned, Compressed
from qprune.zoo import Add, Concat, deployed

Shape = tuple[int, ...]

# A channel that is zero before these is the same channel, and zero, after them.
PASSING = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU, nn.Tanh, nn.Identity, nn.Dropout,
    nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.ZeroPad2d,
    nn.ReflectionPad2d,
)  # fmt: skip
PASSING_FUNCTIONS = (
    "relu", "relu_", "relu6", "leaky_relu", "silu", "gelu", "hardswish", "elu", "tanh", "dropout", "max_pool2d",
    "avg_pool2d", "adaptive_avg_pool2d", "interpolate", "contiguous",
)  # fmt: skip
NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d)
MIXING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
MIXING_FUNCTIONS = ("conv2d", "conv_transpose2d", "linear", "matmul", "__matmul__", "bmm", "einsum")
RECTIFIERS = (nn.ReLU, nn.ReLU6)


@frozen
class Given:
    """A tensor among the arguments of a call.

    Attributes:
        maker: the call that made it; -1 for an input of the network, None for a parameter, a buffer or a constant.
        shape: its shape.
    """

    maker: int | None
    shape: Shape


@frozen
class Call:
    """One layer or function that ran. A function with several results is a call for each of them.

    Attributes:
        index: position in execution order.
        path: the layer's module path; None for a function.
        layer: the layer; None for a function.
        name: class name of the layer, or the function's name.
        inputs: the calls that made its tensor arguments; -1 for an input of the network.
        shapes: shapes of those arguments.
        shape: shape of its (first) result.
        function: the function; None for a layer.
        arguments: all positional arguments, with a `Given` in place of each tensor.
        options: the same for keyword arguments.
        part: which of a function's several results it is.
    """

    index: int
    path: str | None
    layer: nn.Module | None = field(eq=False, repr=False)
    name: str
    inputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    shape: Shape
    function: Callable[..., Any] | None = field(default=None, eq=False, repr=False)
    arguments: tuple[Any, ...] = field(default=(), eq=False, repr=False)
    options: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)
    part: int = 0

    def mixes(self) -> bool:
        """Whether its output channels are new ones, made of several input channels."""
        if self.layer is None:
            return self.name in MIXING_FUNCTIONS
        return isinstance(self.layer, MIXING) and not self._is_depthwise()

    def _is_depthwise(self) -> bool:
        return getattr(self.layer, "groups", 1) == getattr(self.layer, "in_channels", 0) > 1

    def passes(self) -> bool:
        """Whether it has one input and leaves zero channels zero, in their place."""
        if self.layer is not None:
            return isinstance(self.layer, PASSING)
        return self.name in PASSING_FUNCTIONS

    def concatenates(self) -> bool:
        """Whether it is a concatenation along channels."""
        if isinstance(self.layer, Concat) or self.name in ("cat", "concat"):
            return len(self.shape) > 1 and self.shape[1] == sum(shape[1] for shape in self.shapes)
        return False


@frozen
class Flow:
    """The calls of one forward pass, in execution order.

    Attributes:
        calls: every layer and tensor function that ran.
        outputs: indices of the calls that made the network's outputs.
        overwriting: indices of layers that overwrote their argument, which somebody reads again behind them.
    """

    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    overwriting: frozenset[int] = frozenset()

    def of(self, path: str) -> tuple[Call, ...]:
        """The calls of the layer at ``path``; empty if it never ran."""
        return self._by_path().get(path, ())

    def _by_path(self) -> dict[str, tuple[Call, ...]]:
        table: dict[str, tuple[Call, ...]] = {}
        for call in self.calls:
            if call.path is not None:
                table[call.path] = (*table.get(call.path, ()), call)
        return table

    def position(self, path: str) -> int:
        """Where in execution order the layer at ``path`` runs first; after everything if it never ran."""
        calls = self.of(path)
        return calls[0].index if calls else len(self.calls)

    def source(self, call: Call) -> Call | None:
        """The call that made the first argument of ``call``; None for an input of the network."""
        return self.calls[call.inputs[0]] if call.inputs and call.inputs[0] >= 0 else None

    def rectified(self, call: Call) -> bool:
        """Whether the result of ``call`` comes from a ReLU or ReLU6 through layers that keep zeros at its floor."""
        if isinstance(call.layer, RECTIFIERS) or call.name in ("relu", "relu_", "relu6"):
            return True
        follows = call.passes() or call.concatenates()
        return follows and all(index >= 0 and self.rectified(self.calls[index]) for index in call.inputs)

    def output_paths(self) -> set[str]:
        """Layers whose output channels are the network's own: nothing mixes channels between them and the output."""
        found, ahead = set(), list(self.outputs)
        while ahead:
            index = ahead.pop()
            if index < 0 or index in found:
                continue
            found.add(index)
            ahead.extend(() if self.calls[index].mixes() else self.calls[index].inputs)
        return {path for index in found if (path := self.calls[index].path) is not None}

    def norms_reading(self, path: str) -> Iterator[tuple[str, int]]:
        """Normalizations that read the output of the layer at ``path`` unsummed, each with its channel offset there.

        Activations, pooling, concatenation and other normalizations in between are followed; sums, flattening and
        whatever is not known end it.
        """
        ahead = [(call.index, 0) for call in self.of(path)]
        seen = set(ahead)
        while ahead:
            index, offset = ahead.pop(0)
            for reader, shift in self._readers(index):
                at, is_norm = (reader.index, offset + shift), isinstance(reader.layer, NORMS)
                if at not in seen and (is_norm or reader.passes() or reader.concatenates()):
                    seen.add(at)
                    ahead.append(at)
                    if is_norm and reader.path is not None:
                        yield reader.path, offset + shift

    def _readers(self, index: int) -> Iterator[tuple[Call, int]]:
        for call in self.calls[index + 1 :]:
            for slot, source in enumerate(call.inputs):
                if source == index:
                    ahead = call.shapes[:slot] if call.concatenates() else ()
                    yield call, sum(shape[1] for shape in ahead)


def trace(net: nn.Module, example: Any) -> Flow:
    """Run ``net`` once on the meta device and write down what happens; ``net`` itself is not touched.

    Args:
        net: any network.
        example: its input: a tensor, or a tuple of positional arguments. Only shapes and dtypes matter.

    Raises:
        PlanError: if the network cannot run without data, or does not accept the example.

    Example:
        >>> flow = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 5, 7))
        >>> [call.name for call in flow.calls], flow.calls[-1].shape
        (['Conv2d', 'ReLU'], (1, 8, 3, 5))
    """
    shadow = _shadow(net)
    arguments = tree_map_only(Tensor, lambda t: t.detach().to("meta"), example)
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    recorder = _Recorder(dict(_leaves(shadow)), dict(net.named_modules()))
    recorder.know(arguments)
    try:
        with torch.no_grad(), torch.device("meta"), recorder:
            result = shadow(*arguments)
    except Exception as error:
        raise PlanError(
            f"The network could not be followed on an example of shape {_shapes(arguments)}: {error}. Its forward "
            "must run on the meta device, that is, without reading values; check the example's shape first."
        ) from error
    finally:
        recorder.remove()
    outputs = tuple(recorder.sources(result))
    return Flow(tuple(recorder.calls), outputs, frozenset(recorder.read_again))


def _shadow(net: nn.Module) -> nn.Module:
    shadow = copy.deepcopy(net).to("meta").eval()
    shadow.training = net.training and deployed(net) is not net  # what only teaches is reached in training alone
    for module in shadow.modules():
        # People's hooks collect and count real values: they are not to see this run.
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return shadow


def _leaves(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    covered: tuple[str, ...] = ()
    for path, module in net.named_modules():
        if not path.startswith(covered or ("\0",)) and _is_leaf(module):
            covered = (*covered, f"{path}.") if path else ("",)
            yield path, module


def _is_leaf(module: nn.Module) -> bool:
    if isinstance(module, (Aligned, Compressed, Add, Concat)):
        return True
    # the class that wrote the forward decides: a subclass of nn.Conv2d may be as plain as nn.Conv2d
    forward = getattr(type(module), "forward", None)
    of_torch = str(getattr(forward, "__module__", "")).startswith("torch.nn.modules")  # None for generated code
    return of_torch and forward not in (nn.Module.forward, nn.Sequential.forward)


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", str(func))


def _shapes(arguments: Any) -> str:
    return ", ".join(str(tuple(leaf.shape)) for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))


class _Recorder(TorchFunctionMode):
    """Notes each call of a leaf layer, and each tensor function outside of one."""

    def __init__(self, leaves: dict[str, nn.Module], originals: dict[str, nn.Module]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.makers: dict[int, int] = {}
        self.alive: list[Tensor] = []  # keeps ids from being reused
        self.overwritten: dict[int, int] = {}
        self.read_again: set[int] = set()
        self.depth = 0
        self.handles = [handle for path, leaf in leaves.items() for handle in self._watch(path, leaf, originals[path])]

    def _watch(self, path: str, leaf: nn.Module, original: nn.Module) -> tuple[Any, Any]:
        def enter(*_: Any) -> None:
            self.depth += 1

        def leave(module: nn.Module, arguments: Any, kwargs: Any, result: Any) -> Any:
            result = self._apart(arguments, result)
            self.depth -= 1
            if self.depth == 0:
                self._note(path, original, None, (arguments, kwargs), result)
                if getattr(module, "inplace", False):
                    self.overwritten |= {id(each): len(self.calls) - 1 for each in arguments}
            return result

        return leaf.register_forward_pre_hook(enter), leaf.register_forward_hook(leave, with_kwargs=True)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # before it runs: what works in place gives back its argument
        given = tree_map_only(Tensor, self._given, (tuple(args), dict(kwargs or {}))) if self.depth == 0 else ()
        result = func(*args, **(kwargs or {}))
        if self.depth == 0:
            changed = args[0] if _name(func) == "__setitem__" else result
            self._note(None, None, func, given, changed)
        return result

    def _apart(self, arguments: Any, result: Any) -> Any:
        # what a layer gives back as it is (nn.Identity) or overwrites is one tensor by two names, with a maker each
        same = isinstance(result, Tensor) and any(result is each for each in arguments)
        return result.view_as(result) if same else result

    def _given(self, tensor: Tensor) -> Given:
        return Given(self._maker(tensor), tuple(tensor.shape))

    def _maker(self, tensor: Tensor) -> int | None:
        if id(tensor) in self.overwritten:
            self.read_again.add(self.overwritten[id(tensor)])
            return self.overwritten[id(tensor)]
        return self.makers.get(id(tensor))

    def _note(
        self, path: str | None, layer: nn.Module | None, func: Callable[..., Any] | None, arguments: Any, result: Any
    ) -> None:
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        arguments, options = tree_map_only(Tensor, self._given, arguments)
        given = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Given)]
        known = [(leaf.maker, leaf.shape) for leaf in given if leaf.maker is not None]
        if not made or not known:
            return
        inputs, shapes = zip(*known, strict=True)
        name = type(layer).__name__ if func is None else _name(func)
        for part, tensor in enumerate(made if layer is None else made[:1]):
            facts = (inputs, shapes, tuple(tensor.shape), func, tuple(arguments), options, part)
            self.calls.append(Call(len(self.calls), path, layer, name, *facts))
            self.know(made if layer is not None else [tensor], len(self.calls) - 1)

    def know(self, tensors: Any, maker: int = -1) -> None:
        """Remember who made these tensors."""
        for leaf in tree_leaves(tensors):
            if isinstance(leaf, Tensor):
                self.makers[id(leaf)] = maker
                self.overwritten.pop(id(leaf), None)
                self.alive.append(leaf)

    def sources(self, result: Any) -> Iterator[int]:
        """The makers of the tensors in ``result``."""
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                maker = self._maker(leaf)
                yield -1 if maker is None else maker

    def remove(self) -> None:
        """Take the hooks off again."""
        for handle in self.handles:
            handle.remove()
