"""Numbers of channels that a network's own code reads while it is traced: they remember what they were counted of."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Origin = int | str  # a call, whose result's channels were counted; or the path of a layer that knows the number
Note = Callable[[frozenset[Origin], str], None]  # told whose numbers were used, and for what

READERS: frozenset[Any] = frozenset(
    {Tensor.shape.__get__, Tensor.size, Tensor.numel, Tensor.nelement, Tensor.stride, Tensor.__len__, torch.numel}  # type: ignore[attr-defined]
)


class Size:
    """A number that remembers what it was counted of; results of arithmetic do too, and other uses are reported."""

    origins: frozenset[Origin]  # what was counted
    note: Note  # told when the number is compared, converted or decides something

    def __reduce__(self) -> Any:
        return type(plain(self)), (plain(self),)  # a copy is a number as any other


class WholeSize(Size, int):
    """A whole number that remembers; see `Size`."""


class RealSize(Size, float):
    """A float that remembers; see `Size`."""


def size(value: Any, origins: frozenset[Origin], note: Note) -> Any:
    """A number, an int or a float, that remembers what was counted, as a `Size`."""
    if type(value) not in (int, float):
        note(origins, "a computation")
        return value
    number: Any = WholeSize(value) if isinstance(value, int) else RealSize(value)
    number.origins, number.note = origins, note
    return number


def plain(value: Any) -> Any:
    """Turn a remembering number into an ordinary one; other values are returned as they are."""
    if isinstance(value, WholeSize):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, RealSize) else value


def forget(value: Any, found: set[Origin]) -> Any:
    """Arguments of a call, with plain numbers in place of those that remember; ``found`` gets what they remember.

    Example:
        >>> found = set()
        >>> forget([size(16, frozenset({"conv"}), print), slice(None, 2)], found), found
        ([16, slice(None, 2, None)], {'conv'})
    """
    kind: Any = type(value)
    if kind is Tensor or value is None:
        return value
    if kind in (tuple, list, torch.Size):
        return kind([forget(each, found) for each in value])
    if kind is dict:
        return {key: forget(each, found) for key, each in value.items()}
    if kind is slice:
        return slice(forget(value.start, found), forget(value.stop, found), forget(value.step, found))
    if isinstance(value, Size):
        found |= value.origins
    return plain(value)


def read(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    options: Mapping[str, Any],
    dims: Sequence[int],
    remember: Callable[[int], Any],
) -> Any:
    """The result of one of `READERS` for a tensor, with numbers that remember where it counts channels (``dims``).

    Example:
        >>> read(Tensor.size, (torch.zeros(2, 3, 5),), {}, (1,), lambda count: count + 100)
        torch.Size([2, 103, 5])
        >>> read(Tensor.size, (torch.zeros(2, 3, 5), -2), {}, (1,), lambda count: count + 100)
        103
    """
    result = function(*arguments, **options)
    if isinstance(result, torch.Size):
        return torch.Size([remember(n) if dim in dims else n for dim, n in enumerate(result)])
    if isinstance(result, tuple):
        return tuple(map(remember, result))  # all strides: which of them count channels depends on the layout
    if function is Tensor.size:
        dim = (*arguments[1:], *options.values())[0]
        return remember(result) if dim % arguments[0].dim() in dims else result
    return remember(result)


def _computing(function: Callable[..., Any], swapped: bool = False) -> Any:
    def compute(self: Any, *others: Any) -> Any:
        if not all(isinstance(other, (int, float)) for other in others):
            return NotImplemented  # a tensor's operator is a call of its own
        origins = self.origins.union(*(other.origins for other in others if isinstance(other, Size)))
        operands = [plain(each) for each in ((*others, self) if swapped else (self, *others))]
        return size(function(*operands), origins, self.note)

    return compute


def _telling(function: Callable[..., Any], use: str) -> Any:
    def tell(self: Any, *others: Any) -> Any:
        if not all(isinstance(other, (int, float)) for other in others):
            return NotImplemented
        for each in (self, *others):
            if isinstance(each, Size):
                each.note(each.origins, use)
        return function(*map(plain, (self, *others)))

    return tell


def _define(kind: Any) -> None:
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"):
        function = getattr(operator, name, None) or getattr(operator, f"{name}_")
        setattr(kind, f"__{name}__", _computing(function))
        setattr(kind, f"__r{name}__", _computing(function, swapped=True))
    kind.__divmod__ = lambda self, other: (self // other, self % other)
    kind.__rdivmod__ = lambda self, other: (other // self, other % self)
    for name in ("neg", "pos", "abs"):
        setattr(kind, f"__{name}__", _computing(getattr(operator, name)))
    for name, function in (("round", round), ("floor", math.floor), ("ceil", math.ceil), ("trunc", math.trunc)):
        setattr(kind, f"__{name}__", _computing(function))
    for name in ("lt", "le", "eq", "ne", "ge", "gt"):
        setattr(kind, f"__{name}__", _telling(getattr(operator, name), "a comparison"))
    for name, function in (("bool", bool), ("hash", hash)):
        setattr(kind, f"__{name}__", _telling(function, "a decision"))
    for name, function in (("int", int), ("float", float), ("index", operator.index)):
        setattr(kind, f"__{name}__", _telling(function, f"{name}()"))
    kind.bit_length = _telling(int.bit_length, "bit_length()")


_define(Size)
