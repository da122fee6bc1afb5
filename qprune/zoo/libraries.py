"""Networks of other libraries by name: ``torchvision/resnet18``, ``timm/efficientnet_lite0``."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from qprune.spelling import nearest


class Library(Protocol):
    """A library that makes networks by name, with fresh weights."""

    title: ClassVar[str]
    channels: ClassVar[int | None] = None  # of the images that it takes; any number by default

    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return find_spec(self.title) is not None

    @abstractmethod
    def names(self) -> list[str]:
        """The networks for classification and segmentation that it has."""

    @abstractmethod
    def make(self, name: str, classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
        """One of them, for so many classes and channels of an image; other options are the library's."""


class Torchvision(Library):
    """Networks of torchvision for classification and segmentation; of the latter the output is ``"out"`` alone."""

    title = "torchvision"
    channels = 3

    def names(self) -> list[str]:
        """All that its registry lists for images with one class, or one class per pixel."""
        from torchvision import models

        return [*models.list_models(module=models), *models.list_models(module=models.segmentation)]

    def make(self, name: str, classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
        """Without weights and, where there are some, without heads for training alone."""
        from torchvision import models

        of_scenes = name in models.list_models(module=models.segmentation)
        plain = {"weights_backbone": None} if of_scenes else WITHOUT_HEADS.get(name, {})
        net = models.get_model(name, **{"weights": None, "num_classes": classes, **plain, **options})
        return OutOf(net) if of_scenes else net


# options that leave out the heads which training alone uses, and a warning about how weights are made
WITHOUT_HEADS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


class Timm(Library):
    """Networks of timm for classification."""

    title = "timm"

    def names(self) -> list[str]:
        """All that its registry lists."""
        return list(_timm().list_models())

    def make(self, name: str, classes: int, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
        """Without weights."""
        net: nn.Module = _timm().create_model(name, **{"num_classes": classes, "in_chans": in_channels, **options})
        return net


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f'networks of timm/ need the package of the extra "timm": pip install "qprune[timm]" ({error})'
        ) from error
    return timm


class OutOf(nn.Module):
    """A network that returns a dictionary, with only its ``"out"``.

    Example:
        >>> from torchvision.models.segmentation import lraspp_mobilenet_v3_large
        >>> net = OutOf(lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5)).eval()
        >>> net(torch.zeros(1, 3, 32, 64)).shape
        torch.Size([1, 5, 32, 64])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """What the network calls ``"out"``."""
        out: Tensor = self.net(x)["out"]
        return out


# options by which libraries fetch weights, or open a file of them
OF_WEIGHTS = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "pretrained_cfg",
              "pretrained_cfg_overlay", "checkpoint_path")  # fmt: skip
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

    Raises:
        ValueError: for an unknown library or network (the nearest is named), a library that is not installed, options
            that name weights, and options that the library refuses.

    Example:
        >>> make_of_library("torchvision/resnet18", classes=7).fc.out_features
        7
    """
    title, _, own = name.partition("/")
    if title not in LIBRARIES:
        known = " and ".join(f"{each}/" for each in LIBRARIES)
        raise ValueError(f"unknown library {title!r}{nearest(title, LIBRARIES, repr)}; networks are those of {known}")
    named = next((option for option in OF_WEIGHTS if option in options), None)
    if named is not None:
        raise ValueError(
            f"{name} is made with fresh weights, and {named} names others: make the network in Python, load them "
            "there, and hand it to fit as model="
        )
    library = LIBRARIES[title]
    names = library.names()
    if own not in names:
        near = nearest(own, names, lambda word: repr(f"{title}/{word}"))
        raise ValueError(f"unknown network {name!r}{near}; `qprune list --networks` lists them")
    if library.channels not in (None, in_channels):
        raise ValueError(
            f"{name} reads images of {library.channels} channels, and these have {in_channels}; networks of the zoo "
            "and of timm/ take any number"
        )
    try:
        return library.make(own, classes, in_channels, options)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:  # whatever its constructors raise
        raise ValueError(f"{name} cannot be made with {_told(options)}: {str(error).splitlines()[0]}") from error


def _told(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in options.items()) or "these classes"
