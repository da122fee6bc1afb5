"""Networks by name, out of one dict."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from inspect import signature
from typing import Any

from torch import nn

from qprune.zoo.densenet121 import DenseNet121
from qprune.zoo.mobilenetv2 import MobileNetV2
from qprune.zoo.preactresnet18 import PreActResNet18

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "densenet121": DenseNet121,
    "mobilenetv2": MobileNetV2,
    "preactresnet18": PreActResNet18,
}


def create(name: str, **options: Any) -> nn.Module:
    """Make the network called ``name``, with fresh weights.

    Args:
        name: one of `names`.
        options: the network's own arguments. Every classifier takes ``classes`` (100), ``in_channels`` (3) and
            ``width`` (1.0): each layer has ``max(1, int(width * channels))`` channels.

    Returns:
        The network. Input: images ``(N, in_channels, H, W)``. Output: logits ``(N, classes)``.

    Raises:
        ValueError: for an unknown name or option (the nearest valid one is named), a width outside (0, 1], or a count
            that is no whole number of at least 1.

    Example:
        >>> create("preactresnet18", classes=10, width=0.25).linear
        Linear(in_features=128, out_features=10, bias=True)
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; {_nearest(name, NETWORKS)}the zoo has {_list(NETWORKS)}")
    known = signature(NETWORKS[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"unknown option {option!r} of {name}; {_nearest(option, known)}it has {_list(known)}")
        _check(option, value)
    return NETWORKS[name](**options)


def names() -> list[str]:
    """Return the names that `create` knows, sorted.

    Example:
        >>> names()[0]
        'densenet121'
    """
    return sorted(NETWORKS)


def _check(option: str, value: object) -> None:
    if option == "width" and not (_is_a(value, int | float) and 0 < value <= 1):  # type: ignore[operator]
        raise ValueError(f"width must be in (0, 1]; received {value!r}")
    if option in ("classes", "in_channels") and not (_is_a(value, int) and value >= 1):  # type: ignore[operator]
        raise ValueError(f"{option} must be a whole number of at least 1; received {value!r}")


def _is_a(value: object, types: Any) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _nearest(word: object, known: Iterable[str]) -> str:
    close = get_close_matches(str(word).lower(), list(known), n=1)
    return f"nearest: {close[0]!r}; " if close else ""


def _list(known: Iterable[str]) -> str:
    return ", ".join(map(repr, known))
