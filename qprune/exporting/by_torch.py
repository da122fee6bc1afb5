"""Operations without a way of their own: torch's exporter makes a small model of the call, which is put into the file.

It knows nearly all of ATen, and takes about a second for each kind of call; it sees one call at a time, and nothing of
grids. So what computes with integers, moves them, or is in most networks has a way of its own in `FUNCTIONS`.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from qprune.exporting.lowering import Lowering
from qprune.exporting.no_way import NoWayError
from qprune.exporting.packages import import_torchs_exporter
from qprune.exporting.quant_node import OPSET
from qprune.exporting.values import Other, Real, Size, Value
from qprune.graph import hint


@frozen
class _Like:
    """A tensor in a call: its dtype, its shape in the example, and which of its sides may be others."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    free: tuple[bool, ...]


@frozen
class _Length:
    """A side length in a call."""

    example: int


def lower_by_torch(low: Lowering, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """Write one call as torch's exporter would; a NoWayError if it does not know the call either, or is missing."""
    target: Any = node.target
    if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
        raise NoWayError("it makes random numbers")
    given = [each for each in node.all_input_nodes if not isinstance(values[each], int)]
    leaves, form = tree_flatten((node.args, node.kwargs))
    numbers = tuple(given.index(leaf) if leaf in given else None for leaf in leaves)
    constants = tuple(None if leaf in given else fx.node.map_arg(leaf, lambda each: values[each]) for leaf in leaves)
    call = _Call(target, numbers, constants, form)
    try:
        model = _written(call, tuple(_form_of(each.meta["val"]) for each in given))
    except NoWayError:
        raise
    except Exception as error:  # it has many kinds
        raise NoWayError("torch's own exporter does not know it either") from error
    names = low.graph.put_in(model, [_name(low, values[each]) for each in given], node.name)
    made = node.meta["val"]
    if isinstance(made, Tensor):
        return _value(names[0], made)
    return [_value(name, each) for name, each in zip(names, made, strict=True)]


def _value(name: str, made: Tensor) -> Value:
    return Real(name) if made.dtype == torch.float32 else Other(name, made.dtype)


def _name(low: Lowering, value: Any) -> str:
    if isinstance(value, Size):
        return low.graph.node("Squeeze", [value.name], f"{value.name}.number")
    return low.of_its_dtype(value)


def _form_of(value: Any) -> "_Like | _Length":
    if not isinstance(value, Tensor):
        return _Length(hint(value))
    free = tuple(not isinstance(size, int) for size in value.shape)
    return _Like(value.dtype, tuple(map(hint, value.shape)), free)


@frozen
class _Call:
    """A function with its arguments, those that are not constant by their numbers."""

    target: Callable[..., Any]
    numbers: tuple[int | None, ...]
    constants: tuple[Any, ...] = field(eq=False)
    form: Any
    spelled: tuple[str, ...] = field(init=False)  # the constants: 1, 1.0 and True are not the same to a function

    @spelled.default
    def _spell(self) -> tuple[str, ...]:
        return tuple(map(repr, self.constants))

    def __call__(self, given: Sequence[Any]) -> Any:
        pairs = zip(self.numbers, self.constants, strict=True)
        leaves = [constant if number is None else given[number] for number, constant in pairs]
        args, kwargs = tree_unflatten(leaves, self.form)
        return self.target(*args, **kwargs)


class _Calling(nn.Module):
    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, *given: Any) -> Any:
        return self.call(given)


@lru_cache(maxsize=256)
def _written(call: _Call, given: tuple[_Like | _Length, ...]) -> Any:
    """The call as an ONNX model of the tensors and side lengths that it is given."""
    import_torchs_exporter()
    auto = torch.export.Dim.AUTO  # free unless the call says otherwise: a number of channels may be a symbol, too
    free: list[Any] = []
    examples: list[Any] = []
    for each in given:
        if isinstance(each, _Length):
            free.append(auto)
            examples.append(each.example)
        else:
            free.append({dim: auto for dim, is_free in enumerate(each.free) if is_free})
            examples.append(torch.ones(each.shape, dtype=each.dtype))
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                _Calling(call).eval(), tuple(examples), dynamo=True, verbose=False, opset_version=OPSET,
                dynamic_shapes={"given": tuple(free)},
            )  # fmt: skip
    finally:
        logging.disable(level)
    model = program.model_proto
    if model.functions or any(each.domain for each in model.opset_import):
        raise NoWayError("torch's own exporter writes it with operators that no runtime has to know")
    return model
