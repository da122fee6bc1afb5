"""What every reader of a data set gives: all labels at once, and images when asked."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from attrs import frozen
from torch import Tensor


class Images(Protocol):
    """Images by index: a uint8 tensor, or files that are decoded when indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: list[int]) -> Tensor: ...


@frozen(eq=False)
class Source:
    """A data set on this machine.

    Attributes:
        classes: one name per class.
        shape: (channels, height, width).
        labels: per split, the class of each image, int64 of shape (N,). ``"val"`` only where the set has its own.
        read: ``read(split, indices)`` gives those images, uint8 of shape (len(indices), *shape).
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    labels: dict[str, np.ndarray]
    read: Callable[[str, np.ndarray], Images]

    @property
    def sizes(self) -> dict[str, int]:
        """Images per split."""
        return {name: len(labels) for name, labels in self.labels.items()}
