"""Which dimensions of each tensor its channels lie along, and where a function that only moves numbers takes them from.

A convolution makes channels at dimension 1, a linear layer at the last one, and what permutes, reshapes or picks moves
them. What such a function does is found by running it once on numbers that tell where they come from: no table of
functions, arguments and spellings has to be kept.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qprune.flow.calls import Call, Given, Layout, Moves, Shape, usual_layout

# Functions that give back elements of their arguments, each as it was, and perhaps zeros.
MOVING = frozenset({
    "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint", "reshape", "view",
    "reshape_as", "view_as", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to",
    "repeat", "repeat_interleave", "tile", "__getitem__", "chunk", "split", "split_with_sizes", "tensor_split",
    "unsafe_chunk", "unsafe_split", "narrow", "select", "unbind", "index_select", "flip", "fliplr", "flipud", "roll",
    "rot90", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "cat", "concat",
    "concatenate", "stack", "hstack", "vstack", "dstack", "pad",
})  # fmt: skip
_TURNED: frozenset[Any] = frozenset({Tensor.T.__get__, Tensor.mT.__get__, Tensor.H.__get__, Tensor.mH.__get__})  # type: ignore[attr-defined]
# Those whose result has its dimensions in the places of their first argument's.
IN_PLACE = frozenset({"cat", "concat", "concatenate", "flip", "roll", "index_select", "narrow", "pad", "__getitem__"})
MOVING_LAYERS = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
REDUCING = frozenset({"mean", "sum", "amax", "amin", "norm", "var", "std", "prod", "logsumexp"})
# Layers that do the same to every element.
ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Identity, nn.Dropout,
)  # fmt: skip
ZERO, UNKNOWN, FIRST = 0, 1, 2  # the number of a zero that was put in, of what no call made, and of the first channel
LARGEST_TABLE = 2**28
HERE = "cpu"  # where the numbers are, whatever device is the default where a network is traced


def laid_out(calls: Sequence[Call]) -> tuple[Call, ...]:
    """The calls, in execution order, with the layouts of their arguments and results."""
    done: list[Call] = []
    for call in calls:
        makers = [done[index].layout if index >= 0 else None for index in call.inputs]
        given = [usual_layout(shape) if made is None else made for made, shape in zip(makers, call.shapes, strict=True)]
        layouts, layout, moves = _of_layer(call, given) if call.layer is not None else _of_function(call, given)
        matched = [
            index >= 0 and _same(made, done[index].shape, read, shape)
            for index, made, read, shape in zip(call.inputs, makers, layouts, call.shapes, strict=True)
        ]
        done.append(evolve(call, layout=layout, layouts=tuple(layouts), matched=tuple(matched), moves=moves))
    return tuple(done)


def _same(made: Layout | None, before: Shape, read: Layout, shape: Shape) -> bool:
    """Whether channels are read as they were made; one alone always is."""
    sides = _sides(before, made or ()), _sides(shape, read)
    return (made == read and sides[0] == sides[1]) or prod(sides[0]) == prod(sides[1]) == 1


def _sides(shape: Shape, layout: Layout) -> Shape:
    return tuple(shape[dim] for dim in layout)


Found = tuple[Sequence[Layout], Layout, Moves | None]


def _last(shape: Shape) -> Layout:
    return (len(shape) - 1,) if len(shape) > 1 else ()


def _of_layer(call: Call, given: list[Layout]) -> Found:
    layer = call.layer
    if isinstance(layer, nn.Linear) or (isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1):
        return [_last(shape) for shape in call.shapes], _last(call.shape), None
    if isinstance(layer, ELEMENTWISE) or type(layer).__name__ in ("Add", "CompressedAdd", "AlignedAdd"):
        return _alike(call, given)
    if isinstance(layer, MOVING_LAYERS):
        return _moved(call, given)
    return [usual_layout(shape) for shape in call.shapes], usual_layout(call.shape), None


def _alike(call: Call, given: list[Layout]) -> Found:
    """One layout for all arguments and the result: that of the first argument with the most channels."""
    rank = len(call.shape)
    whole = [slot for slot, shape in enumerate(call.shapes) if len(shape) == rank]
    if not whole:
        return given, usual_layout(call.shape), None
    first = max(whole, key=lambda slot: (prod(_sides(call.shapes[slot], given[slot])), -slot))
    read = [given[first] if slot in whole else layout for slot, layout in enumerate(given)]
    return read, given[first], None


def _of_function(call: Call, given: list[Layout]) -> Found:
    name = call.name
    if call.concatenates() and all(layout == (1,) for layout in given):
        return given, (1,), None  # one behind the other: known without running it, which would copy all positions
    if name in MOVING or call.function in _TURNED:
        return _moved(call, given)
    if name in ("linear", "matmul", "__matmul__", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"):
        return given, _last(call.shape), None
    if name.startswith("conv"):
        return [usual_layout(shape) for shape in call.shapes], usual_layout(call.shape), None
    if name in REDUCING and call.shapes and len(call.shape) < len(call.shapes[0]):
        return given, _reduced(call, given[0]), None
    return _alike(call, given)


def reduced_dims(call: Call) -> tuple[int, ...]:
    """The dimensions that a function reduces; empty if it does not say."""
    place = 2 if call.name == "norm" else 1
    dims = call.arguments[place] if len(call.arguments) > place else call.options.get("dim", call.options.get("axis"))
    dims = (dims,) if isinstance(dims, int) else dims
    if not isinstance(dims, (tuple, list)) or not all(isinstance(dim, int) for dim in dims):
        return ()
    return tuple(dim % len(call.shapes[0]) for dim in dims)


def _reduced(call: Call, layout: Layout) -> Layout:
    gone = reduced_dims(call)
    left = [dim for dim in range(len(call.shapes[0])) if dim not in gone]
    kept = tuple(place for place, dim in enumerate(left) if dim in layout)
    return kept if kept and len(left) == len(call.shape) else usual_layout(call.shape)


def _moved(call: Call, given: list[Layout]) -> Found:
    numbers = _numbers_behind(call, given)
    if numbers is None:
        return (
            (*_alike(call, given)[:2], None)
            if len(call.shape) == len(call.shapes[0])
            else (given, usual_layout(call.shape), None)
        )
    count = FIRST + sum(prod(_sides(shape, layout)) for shape, layout in zip(call.shapes, given, strict=True))
    kept = len(call.shape) == len(call.shapes[0]) and call.name in IN_PLACE
    numbers, varying = _narrowed(numbers)
    layout = given[0] if kept else _best(numbers, varying, call.shape, count)
    return given, layout, _moves(numbers, layout, call.shape, count)


@torch.no_grad()
def _numbers_behind(call: Call, given: list[Layout]) -> Tensor | None:
    """What a function makes of tensors in which each element tells its argument's channel."""
    ahead = FIRST
    tensors = []
    for shape, layout in zip(call.shapes, given, strict=True):
        sides = [side if dim in layout else 1 for dim, side in enumerate(shape)]
        numbers = torch.arange(ahead, ahead + prod(sides), dtype=torch.int32, device=HERE)
        tensors.append(numbers.view(sides).expand(shape))
        ahead += prod(sides)
    made = iter(tensors)

    def fill(argument: Any) -> Any:
        if isinstance(argument, Given):
            return (
                next(made)
                if argument.maker is not None
                else torch.tensor(UNKNOWN, dtype=torch.int32, device=HERE).expand(argument.shape)
            )
        return type(argument)(map(fill, argument)) if type(argument) in (list, tuple) else argument

    if _picks_by_tensor(call):
        return None
    function: Any = call.layer.forward if call.layer is not None else _copying(call.function)
    arguments = [fill(argument) for argument in call.arguments]  # before the options, as they are counted
    options = {key: fill(option) for key, option in call.options.items()}
    if call.name == "pad":  # which number is put there is no matter of where channels go
        options |= {"value": ZERO} if len(arguments) < 4 else {}
        arguments = [*arguments[:3], *[ZERO] * len(arguments[3:4])]
    try:
        result = function(*arguments, **options)
        result = result if isinstance(result, Tensor) else result[call.part]
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
        return None
    return result if tuple(result.shape) == call.shape else None


def _picks_by_tensor(call: Call) -> bool:
    # which elements a tensor picks is not known where tensors have no values
    if call.name == "index_select":
        return True
    index = call.arguments[1:] if call.name == "__getitem__" else ()
    return any(isinstance(leaf, Given) for leaf in tree_leaves(index))


def _copying(function: Any) -> Callable[..., Any]:
    # a view of numbers that lie once in memory for many elements is not always possible
    return {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}.get(function, function)


def _narrowed(numbers: Tensor) -> tuple[Tensor, Layout]:
    """The same with one element along dimensions that make no difference, and the other dimensions."""
    varying = []
    for dim, side in enumerate(numbers.shape):
        one = numbers.narrow(dim, 0, 1) if side else numbers
        if side <= 1 or numbers.stride(dim) == 0 or bool((one == numbers).all()):
            numbers = one
        else:
            varying.append(dim)
    return numbers, tuple(varying)


def _best(numbers: Tensor, varying: Layout, shape: Shape, count: int) -> Layout:
    """The dimensions along which numbers differ; of several that repeat numbers, the one that tells most of them."""
    if not varying:  # one channel alone, along no dimension unless there is one of its size
        return (1,) if len(shape) > 1 and shape[1] == 1 else ()
    if prod(_sides(shape, varying)) <= count:
        return varying
    tables = {dim: _table(numbers, (dim,), shape, count) for dim in varying}
    mixed = {dim: float(table.sum(1).float().mean()) for dim, table in tables.items() if table is not None}
    return (min(mixed, key=lambda dim: mixed[dim]),) if mixed else usual_layout(shape)


def _moves(numbers: Tensor, layout: Layout, shape: Shape, count: int) -> Moves | None:
    if all(side == 1 for dim, side in enumerate(numbers.shape) if dim not in layout):
        sides = [shape[dim] if dim in layout else 1 for dim in range(len(shape))]
        return Moves(count, origin=numbers.expand(sides).flatten().long())
    table = _table(numbers, layout, shape, count)
    # a channel that is spread over several, as by `x.view(n, w, h, c)`, is so for images of this size alone
    if table is None or bool((table[:, FIRST:].sum(0) > 1).any()):
        return None
    return Moves(count, table=table)


def _table(numbers: Tensor, layout: Layout, shape: Shape, count: int) -> Tensor | None:
    """``(channels of the result, numbers)``: whether a channel holds a number somewhere."""
    sides = [shape[dim] if dim in layout else 1 for dim in range(len(shape))]
    if prod(sides) * count > LARGEST_TABLE:
        return None
    place = torch.arange(prod(sides), device=HERE).view(sides) * count
    table = torch.zeros(prod(sides) * count, dtype=torch.bool, device=HERE)
    table[(place + numbers).flatten()] = True
    return table.view(-1, count)
