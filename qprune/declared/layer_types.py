"""The layer classes that a declared network may use, and what their constructors and forwards take."""

import inspect
from collections.abc import Mapping
from functools import cache
from inspect import Parameter
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from qprune import layers as compressed
from qprune.spec.values import shown
from qprune.spelling import nearest
from qprune.zoo import Add, Concat

_CONTAINERS = ("Container", "Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential")
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_WORDS = {bool: "true or false", float: "a number", int: "a whole number", str: "a string"}


@cache
def layer_types() -> dict[str, type[nn.Module]]:
    """Return every layer class by name: torch's, `Add` and `Concat`, qprune's compressed layers.

    Containers and torch's lazy layers are left out: a network is declared in layers of known shape.
    """
    found = _modules_in(vars(nn)) | {"Add": Add, "Concat": Concat} | _modules_in(vars(compressed))
    return {name: cls for name, cls in found.items() if name not in _CONTAINERS and not name.startswith("Lazy")}


def find_type(name: str) -> type[nn.Module]:
    """Return the layer class called ``name``."""
    known = layer_types()
    if name in known:
        return known[name]
    near = nearest(name, known) or "; it may be a layer of torch.nn or qprune.layers, Add or Concat"
    raise ValueError(f'unknown layer type "{name}"{near}')


def arguments(cls: type[nn.Module]) -> dict[str, Parameter]:
    """Return the constructor's arguments by name, each with its type as ``annotation``.

    Arguments that a constructor passes on as ``**kwargs`` are looked up in its bases. ``device`` and ``dtype`` are left
    out: where a network lives is not declared with its layers.
    """
    found: dict[str, Parameter] = {}
    for base in _until_module(cls):
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found = {p.name: _typed(p, base) for p in parameters if p.kind in _BY_NAME} | found
            if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
                break
    return {name: p for name, p in found.items() if name not in ("self", "device", "dtype")}


def inputs_of(cls: type[nn.Module]) -> tuple[int, float]:
    """Return the least and the greatest number of tensors that a layer reads."""
    for base in () if issubclass(cls, Add | Concat) else _until_module(cls):
        parameters = list(inspect.signature(vars(base).get("forward", _passes_on)).parameters.values())[1:]
        if not any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
            return sum(p.default is Parameter.empty for p in parameters), len(parameters)
    return 2, float("inf")


def fits(value: object, hint: Any) -> bool:
    """Whether ``value``, as TOML has it, is of the annotated type; lists count as tuples, ints as floats.

    A type that cannot be checked fits everything: the constructor then has the last word.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and _items_fit(value, inner)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def describe(hint: Any) -> str:
    """Say in words what `fits` asks for."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(describe(one) for one in inner if one is not NoneType))
    if origin is Literal:
        return f"one of {', '.join(map(shown, inner))}"
    if origin in (list, tuple):
        return "a list" if origin is list or inner[-1] is Ellipsis else f"a list of {len(inner)}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _modules_in(namespace: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
    return {name: cls for name, cls in namespace.items() if isinstance(cls, type) and issubclass(cls, nn.Module)}


def _until_module(cls: type[nn.Module]) -> tuple[type, ...]:
    bases = inspect.getmro(cls)
    return bases[: bases.index(nn.Module)]


def _passes_on(self: Any, *inputs: Any) -> None: ...


def _typed(parameter: Parameter, base: type) -> Parameter:
    try:
        hints = get_type_hints(vars(base)["__init__"])
    except NameError:  # an annotation that only a type checker can resolve
        hints = {}
    return parameter.replace(annotation=hints.get(parameter.name, Any))


def _items_fit(values: list[Any] | tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 1 or inner[-1] is Ellipsis:
        return all(fits(value, inner[0]) for value in values)
    return len(values) == len(inner) and all(fits(value, one) for value, one in zip(values, inner, strict=True))
