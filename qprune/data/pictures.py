"""Pictures that are decoded or drawn when they are asked for."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from qprune.data.decode import Pixels, read_image, read_size
from qprune.data.labels import LabelIds, read_label_size, read_labels
from qprune.data.resizing import fit
from qprune.data.source import StoredPictures
from qprune.data.street import draw_street
from qprune.errors import DataError


@frozen(eq=False)
class PhotoFiles:
    """Image files."""

    paths: Sequence[Path]
    half: int | None = None  # 0 for the left half of each, 1 for the right one, None for the whole

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        # both halves of a file are asked for one after the other
        pixels = read_image(self.paths[index]) if self.half is None else _read_again(self.paths[index])
        return _channels_first(pixels if self.half is None else np.split(pixels, 2, axis=1)[self.half])

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width), from the header."""
        height, width = read_size(self.paths[index])
        if self.half is None:
            return height, width
        if width % 2:
            raise DataError(
                f"{self.paths[index]}: must be two images of one width side by side; received {width} pixels."
            )
        return height, width // 2

    def name_of(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])


@frozen(eq=False)
class LabelFiles:
    """Label maps as files."""

    paths: Sequence[Path]
    ids: LabelIds  # which id is which class

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(read_labels(self.paths[index], self.ids))

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width), from the header."""
        return read_label_size(self.paths[index])

    def name_of(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])


@frozen(eq=False)
class Streets:
    """Drawn street scenes: their images, or their label maps."""

    split: str  # "train", "val" or "test"
    count: int
    size: tuple[int, int]  # (height, width)
    labels: bool = False  # whether these are the label maps

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        image, labels = _draw_again(0, self.split, index, *self.size)
        return torch.from_numpy(labels.copy()) if self.labels else _channels_first(image)

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width), the same for all."""
        return self.size

    def name_of(self, index: int) -> str:
        """The split and number of the scene."""
        return f"streets, {self.split} scene {index}"


_read_again: Callable[[Path], Pixels] = lru_cache(maxsize=1)(read_image)
_draw_again: Callable[..., tuple[Any, Any]] = lru_cache(maxsize=1)(draw_street)


def _channels_first(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


@frozen(eq=False)
class Chosen:
    """Some of many pictures, squeezed to one size."""

    pictures: StoredPictures  # all of them
    indices: Sequence[int]
    size: tuple[int, int] | None = None  # (height, width); None keeps theirs

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        picture = self.pictures[self.indices[index]]
        return fit(picture, self.size) if self.size else picture

    def stored_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each before it is squeezed."""
        return [self.pictures.size_of(index) for index in self.indices]

    def name_of(self, index: int) -> str:
        """The name of a picture for error messages."""
        return self.pictures.name_of(self.indices[index])
