"""Networks of other libraries by name: ``torchvision/resnet18``, ``timm/efficientnet_lite0``; and their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qprune.spelling import nearest
from qprune.zoo.library import Library
from qprune.zoo.state_files import State
from qprune.zoo.timm_library import Timm
from qprune.zoo.torchvision_library import Torchvision
from qprune.zoo.weights import Preset, Weights

# options by which libraries fetch weights, or open a file of them
OF_WEIGHTS = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "pretrained_cfg",
              "pretrained_cfg_overlay", "checkpoint_path")  # fmt: skip
BACKBONE = "net.backbone."  # before the names of a backbone in a network for segmentation
LIBRARIES: dict[str, Library] = {library.title: library for library in (Torchvision(), Timm())}


def is_of_library(name: str) -> bool:
    """Whether a name says that the network is one of another library.

    Example:
        >>> is_of_library("torchvision/resnet18"), is_of_library("resnet20")
        (True, False)
    """
    return "/" in name


def library_names() -> list[str]:
    """The names of the networks of those libraries that are installed, in their order.

    Example:
        >>> library_names()[0]
        'torchvision/alexnet'
    """
    installed = [library for library in LIBRARIES.values() if library.is_installed()]
    return [f"{library.title}/{name}" for library in installed for name in library.names()]


def make_of_library(name: str, *, classes: int = 1000, in_channels: int = 3, **options: Any) -> nn.Module:
    """Make a network of another library.

    A ValueError names the nearest to an unknown library or network, a library that is not installed, options that name
    weights, and options that the library refuses.
    """
    library, own = _of(name)
    named = next((option for option in OF_WEIGHTS if option in options), None)
    if named is not None:
        raise ValueError(
            f"{name} is made with fresh weights, and {named} names others: a spec says which in [model], "
            'weights = "DEFAULT", a name or a file (of a backbone, weights_backbone); in Python load them into the '
            "network, and hand it to fit as model="
        )
    if library.channels not in (None, in_channels):
        raise ValueError(
            f"{name} reads images of {library.channels} channels, and these have {in_channels}; networks of the zoo "
            "and of timm/ take any number"
        )
    try:
        return library.make(own, classes, in_channels, options)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:  # whatever its constructors raise
        raise ValueError(f"{name} cannot be made with {_told(options)}: {str(error).splitlines()[0]}") from error


def _of(name: str) -> tuple[Library, str]:
    """The library of a network, and the name that it has there."""
    title, _, own = name.partition("/")
    if title not in LIBRARIES:
        known = " and ".join(f"{each}/" for each in LIBRARIES)
        raise ValueError(f"unknown library {title!r}{nearest(title, LIBRARIES, repr)}; networks are those of {known}")
    names = LIBRARIES[title].names()
    if own not in names:
        near = nearest(own, names, lambda word: repr(f"{title}/{word}"))
        raise ValueError(f"unknown network {name!r}{near}; `qprune list --networks` lists them")
    return LIBRARIES[title], own


def find_weights(name: str, wanted: str | Path, *, backbone: bool = False) -> Weights:
    """Weights of a network of a library, which need not be on this machine.

    Args:
        name: of the network, as for `make_of_library`.
        wanted: ``"DEFAULT"``, another name that the library has for weights of it, or a path: a file of the user's own.
        backbone: of its backbone alone: those of the network for classification that it was cut from.

    Raises:
        ValueError: for a network of the zoo, an unknown library or network, weights that it does not have (the nearest
            is named), or the backbone of a network that has none of its own.

    Example:
        >>> find_weights("torchvision/resnet50", "IMAGENET1K_V2").title
        'the weights IMAGENET1K_V2 of torchvision/resnet50'
    """
    if not is_of_library(name):
        raise ValueError(
            f"weights are of networks of torchvision/ and timm/; {name} of the zoo starts from a run, init"
        )
    library, own = _of(name)
    if backbone and not library.listed(own, backbone):
        raise ValueError(f"weights_backbone is of torchvision's networks for segmentation; {name} takes weights")
    if isinstance(wanted, Path):
        return Weights(f"the weights of {name}", library.preset(own), file=wanted)
    listed = library.listed(own, backbone)
    if wanted not in listed:
        known = f"it has {', '.join(map(repr, listed))}" if listed else "it has none"
        what = "weights_backbone" if backbone else "weights"
        raise ValueError(
            f"{name} has no {what} {wanted!r}{nearest(wanted, listed, repr)}; {known}; a file is named by a path that "
            "ends in .pth, .pt or .safetensors"
        )
    found = listed[wanted]
    if found.refusal:
        raise ValueError(f"{found.title} {found.refusal}")
    return found


def preset_of(name: str) -> Preset:
    """The images that a network of a library is usually trained for: those of its default weights.

    Raises:
        ValueError: for an unknown library or network.

    Example:
        >>> preset_of("torchvision/inception_v3").size
        299
    """
    library, own = _of(name)
    return library.preset(own)


def needed_options(name: str) -> dict[str, Any]:
    """Options that a network needs to compute what its listed weights were trained for.

    Example:
        >>> needed_options("torchvision/googlenet")
        {'transform_input': True}
    """
    if not is_of_library(name):
        return {}
    library, own = _of(name)
    return library.needed(own)


def native_state(name: str, state: State, *, in_channels: int = 3, **options: Any) -> State:
    """What a file of weights holds, under the names of the network that `make_of_library` makes.

    Args:
        name: of the network.
        state: from `read_state`.
        in_channels: of the images. timm sums or repeats the weights of the first layer for them.
        options: of the network.

    Example:
        >>> list(native_state("torchvision/fcn_resnet50", {"backbone.conv1.weight": torch.zeros(1)}))
        ['net.backbone.conv1.weight']
    """
    library, own = _of(name)
    return library.native(own, state, in_channels, options)


def backbone_state(state: State) -> State:
    """What a file of weights of a network for classification holds, under the names of a backbone cut from it.

    Example:
        >>> list(backbone_state({"conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}))
        ['net.backbone.conv1.weight']
    """
    kept = {key: value for key, value in state.items() if not key.startswith(("fc.", "classifier."))}
    return {f"{BACKBONE}{key.removeprefix('features.')}": value for key, value in kept.items()}


def _told(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in options.items()) or "these classes"
