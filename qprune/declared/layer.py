"""One declared layer: its class, its arguments with what the input tells filled in, and its output's shape."""

import copy
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from qprune.declared.layer_types import arguments, describe, find_type, fits, inputs_of
from qprune.spec.values import listed, shown
from qprune.spelling import nearest
from qprune.zoo import Add, Concat

Built: TypeAlias = tuple[nn.Module | None, Tensor | None]
"""A module and its output on the meta device; both None where a mistake elsewhere hides what they would be."""
Reads: TypeAlias = Sequence[tuple[str, Tensor | None]]
"""What a layer reads, in order: names, and meta tensors where they are known."""

INFERRED = {"channels": 1, "in_channels": 1, "in_features": -1, "num_channels": 1, "num_features": 1}
"""Constructor arguments that the input tells, and of which of its dimensions each is the size."""
MOST_VALUES = 1_000_000_000  # weights and buffers of one layer, 4 GB in float32


class Mistakes(Exception):  # noqa: N818  # many of them in one
    """Sentences, each starting with where it belongs: ``": ..."`` for the layer itself, ``".from: ..."`` for a key."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def make_layer(type_name: str, options: Mapping[str, Any], reads: Reads) -> Built:
    """Make one layer and learn the shape of its output."""
    try:
        cls = find_type(type_name)
    except ValueError as error:
        raise Mistakes([f".type: {error}"]) from None
    mistakes = [*_mistakes_of_reads(cls, reads), *_mistakes_of_options(cls, options)]
    if mistakes:
        raise Mistakes(mistakes)
    inputs = [x for _, x in reads if x is not None]
    if not inputs or len(inputs) < len(reads):
        return None, None
    _check_shapes(cls, options, reads)
    module = _construct(cls, {**_inferred(cls, options, inputs[0]), **options})
    return module, _output_of(module, reads)


def _mistakes_of_reads(cls: type[nn.Module], reads: Reads) -> list[str]:
    least, most = inputs_of(cls)
    if not reads or least <= len(reads) <= most:
        return []
    count = f"{'at least ' * (least < most)}{least} tensor{'s' * (least > 1)}"
    way_out = "join them with Add or Concat first" if len(reads) > most else 'name them as a list in "from"'
    return [f".from: {cls.__name__} reads {count}; received {listed([name for name, _ in reads], 'and')}; {way_out}"]


def _mistakes_of_options(cls: type[nn.Module], options: Mapping[str, Any]) -> list[str]:
    known, mistakes = arguments(cls), []
    for option, value in options.items():
        if option not in known:
            near = nearest(option, known) or f"; it has {listed(known, 'and') if known else 'none'}"
            mistakes.append(f".{option}: {cls.__name__} has no such option{near}")
        elif not fits(value, known[option].annotation):
            mistakes.append(f".{option}: must be {describe(known[option].annotation)}; received {shown(value)}")
    missing = [name for name in _required(cls) if name not in INFERRED and name not in options]
    return mistakes + ([f": {cls.__name__} needs {listed(missing, 'and')}"] if missing else [])


def _required(cls: type[nn.Module]) -> list[str]:
    return [name for name, parameter in arguments(cls).items() if parameter.default is Parameter.empty]


def _check_shapes(cls: type[nn.Module], options: Mapping[str, Any], reads: Reads) -> None:
    shapes = [list(x.shape) for _, x in reads if x is not None]
    if issubclass(cls, Concat):
        dim = options.get("dim", 1)
        shapes = [[*shape[:dim], 0, *shape[dim:][1:]] for shape in shapes]
    if issubclass(cls, Add | Concat) and any(shape != shapes[0] for shape in shapes):
        rule = "equal shapes" if issubclass(cls, Add) else f"shapes that differ in dimension {dim} alone"
        raise Mistakes([f".from: {cls.__name__} needs {rule}; received {_shapes(reads)}"])
    if "in_features" in _required(cls) and "in_features" not in options and len(shapes[0]) > 3:
        raise Mistakes([f": {cls.__name__} reads flat features; received {_shapes(reads)}: put a Flatten before it"])


def _inferred(cls: type[nn.Module], options: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    missing = [name for name in _required(cls) if name not in options and x.dim() > 1]
    return {name: x.shape[INFERRED[name]] for name in missing}


def _construct(cls: type[nn.Module], options: Mapping[str, Any]) -> nn.Module:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    size = _size(cls, values)
    if size > MOST_VALUES:
        raise Mistakes([f": {_call(cls, options)} has {size:,} weights; a layer has at most {MOST_VALUES:,}"])
    try:
        return cls(**values)
    except Exception as error:  # whatever torch raises, the sentence is for the spec's author
        raise Mistakes([f": {_call(cls, options)} cannot be made: {_first_line(error)}"]) from None


def _size(cls: type[nn.Module], values: Mapping[str, Any]) -> int:
    """Number of values the layer will have, counted without allocating memory; 0 if it cannot be made on meta."""
    try:
        with torch.device("meta"):
            return sum(value.numel() for value in cls(**values).state_dict().values())
    except Exception:  # made in earnest it tells why
        return 0


def _output_of(module: nn.Module, reads: Reads) -> Tensor:
    # in eval: batch normalization in training refuses a batch of one value per channel
    on_meta = copy.deepcopy(module).to("meta").eval()
    try:
        with torch.no_grad():
            output = on_meta(*(x for _, x in reads))
    except Exception as error:
        raise Mistakes([f": {module!r} cannot read {_shapes(reads)}: {_first_line(error)}"]) from None
    if not isinstance(output, Tensor):
        raise Mistakes([f": {module!r} returns a {type(output).__name__}; a declared layer returns one tensor"])
    return output


def _call(cls: type[nn.Module], options: Mapping[str, Any]) -> str:
    return f"{cls.__name__}({', '.join(f'{name}={shown(value)}' for name, value in options.items())})"


def _shapes(reads: Reads) -> str:
    shapes = [(name, ", ".join(["N", *map(str, x.shape[1:])])) for name, x in reads if x is not None]
    return " and ".join(f'"{name}" ({shape})' for name, shape in shapes)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
