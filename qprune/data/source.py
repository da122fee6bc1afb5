"""What every reader of a data set returns: classes, labels and sizes at once, images when they are indexed."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from attrs import frozen
from torch import Tensor

from qprune.data.decode import Photos
from qprune.data.palettes import Colour


class Images(Protocol):
    """Images by index: a uint8 tensor, or files that are decoded when indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: list[int]) -> Tensor: ...


@frozen(eq=False)
class Source:
    """A data set on this machine."""

    classes: tuple[str, ...]  # one name per class
    shape: tuple[int, int, int]  # (channels, height, width)
    # per split, the class of each image, int64 of shape (N,). "val" only where the set has its own
    labels: dict[str, np.ndarray]
    # read(split, indices) gives those images, uint8 of shape (len(indices), *shape)
    read: Callable[[str, np.ndarray], Images]
    # of files of any size, whose middle is cut out: the same as files, to be augmented as they are stored
    photos: Callable[[str, np.ndarray], Photos] | None = None
    stored_shape: tuple[int, int, int] | None = None  # of the first image, before it comes to the size of all

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split."""
        return {name: len(labels) for name, labels in self.labels.items()}


class Pictures(Protocol):
    """Images or label maps, decoded or drawn when indexed: uint8, (3, H, W) or (H, W)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class StoredPictures(Pictures, Protocol):
    """Pictures with a name each, whose size is known before they are decoded."""

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width) without its pixels; refuses what the header shows to be wrong."""

    def name_of(self, index: int) -> str:
        """Its name for error messages."""


@frozen(eq=False)
class PairSource:
    """A data set of pairs on this machine: images and their label maps, or images of two kinds."""

    classes: tuple[str, ...]  # one name per class of label maps, () for two kinds of images
    palette: tuple[Colour, ...]  # one colour per class
    shape: tuple[int, int, int]  # (channels, height, width) of the first image, as it is stored
    # per split its two sides, A and B; "val" only where the set has its own
    parts: dict[str, tuple[StoredPictures, StoredPictures]]
    matched: bool = True  # whether what is at the same place belongs together
