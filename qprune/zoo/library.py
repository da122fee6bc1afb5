"""`Library`: what another library is asked for, its networks by name and their weights."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

from torch import nn

from qprune.zoo.state_files import State
from qprune.zoo.weights import Preset, Weights


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

    @abstractmethod
    def preset(self, name: str) -> Preset:
        """The images that its default weights were trained for."""

    @abstractmethod
    def listed(self, name: str, backbone: bool = False) -> dict[str, Weights]:
        """The weights that it has for a network, or for the backbone of one, by their names."""

    def needed(self, name: str) -> dict[str, Any]:
        """Options without which a network computes something else than what its listed weights were trained for."""
        return {}

    @abstractmethod
    def native(self, name: str, state: State, in_channels: int, options: Mapping[str, Any]) -> State:
        """What a file of weights holds, under the names of the network that `make` makes."""
