"""The parts of a traced network: `Call` and `Flow`."""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from attrs import Factory, evolve, field, frozen
from torch import Tensor, nn

from qprune.zoo import Concat

Shape = tuple[int, ...]
# The dimensions along which a tensor's channels lie, in ascending order: one of most tensors, several of one in which
# the network's own code has split them (into groups, say). They are counted as their elements lie, the last fastest.
Layout = tuple[int, ...]


def usual_layout(shape: Shape) -> Layout:
    """Dimension 1; none of a tensor that has no such."""
    return (1,) if len(shape) > 1 else ()


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
NORMS = (
    nn.BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm3d, nn.InstanceNorm2d, nn.InstanceNorm1d, nn.InstanceNorm3d,
)  # fmt: skip
MIXING = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip
MIXING_FUNCTIONS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
    "matmul",
    "__matmul__",
    "bmm",
    "einsum",
)
RECTIFIERS = (nn.ReLU, nn.ReLU6)


@frozen
class Given:
    """A tensor among the arguments of a call."""

    # the call that made it; -1 for an input of the network, None for a parameter, a buffer or a constant
    maker: int | None
    shape: Shape  # its shape


def axis_of(layout: Layout, shape: Shape) -> int:
    """The dimension of channels that lie along one: 1, or counted from the last one, which is -1."""
    return 1 if layout in ((), (1,)) else layout[0] - len(shape)


@frozen(eq=False)
class Moves:
    """Where the channels of a result come from, by numbers.

    0 is a constant that is put in, 1 is anything, from 2 on the channels of the arguments are counted through.
    """

    count: int  # how many numbers there are
    origin: Tensor | None = None  # for each channel its number, if it has one alone
    table: Tensor | None = None  # else ``(channels, numbers)``: whether a channel holds a number at any position


@frozen
class Call:
    """One layer or function that ran. A function with several results is a call for each of them."""

    index: int  # position in execution order
    path: str | None  # the layer's module path; None for a function
    layer: nn.Module | None = field(eq=False, repr=False)  # the layer; None for a function
    name: str  # class name of the layer, or the function's name
    inputs: tuple[int, ...]  # the calls that made its tensor arguments; -1 for an input of the network
    shapes: tuple[Shape, ...]  # shapes of those arguments
    shape: Shape  # shape of its (first) result
    function: Callable[..., Any] | None = field(default=None, eq=False, repr=False)  # the function; None for a layer
    # all positional arguments, with a `Given` in place of each tensor
    arguments: tuple[Any, ...] = field(default=(), eq=False, repr=False)
    options: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)  # the same for keyword arguments
    part: int = 0  # which of a function's several results it is
    # the dimensions of its result, and of each argument as it is read, that are channels; dimension 1 by default
    layout: Layout = field(default=Factory(lambda self: usual_layout(self.shape), takes_self=True))
    layouts: tuple[Layout, ...] = field(
        default=Factory(lambda self: tuple(map(usual_layout, self.shapes)), takes_self=True)
    )
    # for each argument whether its channels are those that its maker made; never for an input of the network
    matched: tuple[bool, ...] = field(
        default=Factory(lambda self: tuple(index >= 0 for index in self.inputs), takes_self=True)
    )
    moves: Moves | None = field(default=None, eq=False, repr=False)  # of what only moves channels, where it is known

    @property
    def count(self) -> int:
        """Channels of its result; 1 where there is no dimension for them."""
        return prod(self.shape[dim] for dim in self.layout)

    @property
    def counts(self) -> tuple[int, ...]:
        """The same of each argument."""
        return tuple(prod(s[dim] for dim in layout) for s, layout in zip(self.shapes, self.layouts, strict=True))

    @property
    def axis(self) -> int:
        """The dimension of its result's channels: 1, or counted from the last one, which is -1."""
        return axis_of(self.layout, self.shape)

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
    """The calls of one forward pass, in execution order."""

    calls: tuple[Call, ...]  # every layer and tensor function that ran
    outputs: tuple[int, ...]  # indices of the calls that made the network's outputs
    # indices of calls that wrote into memory which is read again behind them by an earlier name: the same tensor, or
    # another view of it. Who reads it there reads what this call made; the makers of the earlier names are among the
    # call's inputs. With them the layers that handed this memory on
    overwriting: frozenset[int] = frozenset()
    # the calls whose results go into, or come out of, a module of several layers that has a hook, each with that
    # module's path
    watched: Mapping[int, str] = field(factory=dict)
    # layers with a parameter or buffer that somebody else reads, each with the name of that function
    borrowed: Mapping[str, str] = field(factory=dict)
    # calls and layers (by path) whose number of channels the network's own code reads and does something with, each
    # with what that is first, and where
    measured: Mapping[int | str, str] = field(factory=dict)
    # the same where it is not known whether anything is done with the number
    read: Mapping[int | str, str] = field(factory=dict)
    # modules with parameters that did not run, and of which nothing was read, by their paths: heads that only teach
    unused: tuple[str, ...] = ()

    def cautious(self) -> "Flow":
        """A copy that treats every number of channels that was read as used.

        Python hands a number on without a word in some places: ``range``, ``math.log2``, a text.
        """
        return evolve(self, measured={**self.read, **self.measured})

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
        """Position in execution order of the first call of the layer at ``path``; behind all calls if it never ran."""
        calls = self.of(path)
        return calls[0].index if calls else len(self.calls)

    def source(self, call: Call) -> Call | None:
        """The call that made the first argument of ``call``; None for an input of the network."""
        return self.calls[call.inputs[0]] if call.inputs and call.inputs[0] >= 0 else None

    def readers(self, call: Call) -> list[Call]:
        """The calls that read the result of ``call``."""
        return [reader for reader in self.calls[call.index + 1 :] if call.index in reader.inputs]

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
            for reader, shift in self._readings(index):
                at, is_norm = (reader.index, offset + shift), isinstance(reader.layer, NORMS)
                if at not in seen and (is_norm or reader.passes() or reader.concatenates()):
                    seen.add(at)
                    ahead.append(at)
                    if is_norm and reader.path is not None:
                        yield reader.path, offset + shift

    def _readings(self, index: int) -> Iterator[tuple[Call, int]]:
        for call in self.calls[index + 1 :]:
            for slot, source in enumerate(call.inputs):
                if source == index:
                    ahead = call.shapes[:slot] if call.concatenates() else ()
                    yield call, sum(shape[1] for shape in ahead)
