"""Networks by name, out of one dict."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from torch import nn

from qprune.spelling import nearest
from qprune.zoo.cyclegan import CycleGAN
from qprune.zoo.densenet121 import DenseNet121
from qprune.zoo.frrn_b import FRRNB
from qprune.zoo.libraries import is_of_library, make_of_library
from qprune.zoo.mobilenetv2 import MobileNetV2
from qprune.zoo.patchgan import PatchGAN
from qprune.zoo.pix2pix import Pix2Pix
from qprune.zoo.preactresnet18 import PreActResNet18
from qprune.zoo.resnet_cifar import CifarResNet
from qprune.zoo.resnet_generator import ResNetGenerator
from qprune.zoo.unet import UNet
from qprune.zoo.unet_256 import UNet256
from qprune.zoo.vgg7 import VGG7

log = logging.getLogger(__name__)

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "densenet121": DenseNet121,
    "mobilenetv2": MobileNetV2,
    "preactresnet18": PreActResNet18,
    "resnet20": partial(CifarResNet, 3),
    "resnet56": partial(CifarResNet, 9),
    "resnet110": partial(CifarResNet, 18),
    "vgg7": VGG7,
    "unet": UNet,
    "frrn_b": FRRNB,
    "resnet_generator": ResNetGenerator,
    "unet_256": UNet256,
    "patchgan": PatchGAN,
    "cyclegan": CycleGAN,
    "pix2pix": Pix2Pix,
}
COUNTS = ("classes", "in_channels", "out_channels")
SYNONYMS = {"num_classes": "classes"}  # as torchvision and timm say it
CHOICES: dict[str, tuple[object, ...]] = {
    "blocks": (6, 9),
    "chained": (True, False),
    "norm": ("instance", "batch"),
    "shortcut": ("A", "B"),
}


def create(name: str, **options: Any) -> nn.Module:
    """Make the network called ``name``, with fresh weights.

    Args:
        name: one of `names`; or ``"torchvision/..."`` or ``"timm/..."`` (with the extra ``timm``), one of theirs, which
            has no ``width``, and whose further options are those of its own constructor.
        options: the network's own arguments. All take ``in_channels`` (3) and ``width`` (1.0): each layer has
            ``max(1, int(width * channels))`` channels. Networks for classification (100, or 10 where papers measure on
            CIFAR-10) and segmentation (19) take ``classes`` (or ``num_classes``, as torchvision says it), those that
            make images ``out_channels`` (3); `options_of` names the rest.

    Returns:
        The network. Input: images ``(N, in_channels, H, W)``, where H and W are multiples of the network's ``stride``
        if it has one. Output: logits ``(N, classes)`` or ``(N, classes, H, W)``, or images ``(N, out_channels, H, W)``.

    Raises:
        ValueError: for an unknown name or option (the nearest valid one is named), an option under two names, a width
            outside (0, 1], a count that is no whole number of at least 1, or a word or number that is not among the
            option's choices.

    Example:
        >>> create("preactresnet18", classes=10, width=0.25).linear
        Linear(in_features=128, out_features=10, bias=True)
    """
    known, options = options_of(name), own_options(name, options)
    for option, value in options.items():
        if option in known:
            _check(option, value)
        elif not is_of_library(name):
            raise ValueError(
                f"unknown option {option!r} of {name}{nearest(option, known, repr)}; it has {_list(known)}"
            )
    return make_of_library(name, **options) if is_of_library(name) else NETWORKS[name](**options)


def own_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names that the network called ``name`` has for them.

    Raises:
        ValueError: for an unknown network, or an option that is given under two names.

    Example:
        >>> own_options("vgg7", {"num_classes": 10, "width": 0.5})
        {'classes': 10, 'width': 0.5}
    """
    synonyms = {other: own for other, own in SYNONYMS.items() if other in options and own in options_of(name)}
    for other, own in synonyms.items():
        if own in options:
            received = f"{options[other]!r} and {options[own]!r}"
            raise ValueError(f"{other} is another name for {own}: give one of them; received {received}")
        log.info("%s of %s is taken as %s, its name here", other, name, own)
    return {synonyms.get(option, option): value for option, value in options.items()}


def options_of(name: str) -> list[str]:
    """Return the options that the network called ``name`` takes; of other libraries' those that all of them do.

    Raises:
        ValueError: for an unknown name (the nearest valid one is named).

    Example:
        >>> options_of("unet")
        ['classes', 'in_channels', 'width']
    """
    if is_of_library(name):
        return list(COUNTS[:2])
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}{nearest(name, NETWORKS, repr)}; the zoo has {_list(NETWORKS)}")
    return list(signature(NETWORKS[name]).parameters)


def names() -> list[str]:
    """Return the names of the zoo's own networks, sorted; those of other libraries are `library_names`.

    Example:
        >>> names()[0]
        'cyclegan'
    """
    return sorted(NETWORKS)


def _check(option: str, value: object) -> None:
    if option.startswith("width") and not (_is_a(value, int | float) and 0 < value <= 1):  # type: ignore[operator]
        raise ValueError(f"{option} must be in (0, 1]; received {value!r}")
    if option in COUNTS and not (_is_a(value, int) and value >= 1):  # type: ignore[operator]
        raise ValueError(f"{option} must be a whole number of at least 1; received {value!r}")
    choices = CHOICES.get(option, ())
    if choices and (type(value) is not type(choices[0]) or value not in choices):
        raise ValueError(f"{option} must be {' or '.join(map(repr, choices))}; received {value!r}")


def _is_a(value: object, types: Any) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _list(known: Iterable[str]) -> str:
    return ", ".join(map(repr, known))
