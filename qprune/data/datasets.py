"""Map-style datasets whose training items are asked for by (epoch, index), so that chance has one source."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import define
from torch import Tensor
from torch.utils.data import Dataset

from qprune.data.augment import Augment
from qprune.data.decode import Photos
from qprune.data.seeds import AUGMENT, mix
from qprune.data.source import Images
from qprune.data.stored import Fetched, Key, StoredSet, begin, gather, size_of, split_keys, torch_state_kept


@define(eq=False)
class ImageSet(StoredSet):
    """Images and labels; augmented where the key is a pair (epoch, index), plain where it is an index.

    An item is ``(image, label)``: float32 (C, H, W), ``(pixel / 255 - mean) / std``, and an int. The augmentation of
    an item is drawn from a generator seeded by (seed, epoch, index) alone; torch's global generator is left as it was.

    Args:
        images: uint8 (N, C, H, W); or files, decoded when indexed. `Photos` are augmented as they are stored, and
            brought to the size of all afterwards: RandomResizedCrop so sees the whole photo, in its own resolution.
        labels: int64 (N,).
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        augment: what to do to training images; None for nothing.
        seed: seeds the augmentation.

    Example:
        >>> ImageSet(torch.zeros(2, 1, 3, 5, dtype=torch.uint8), torch.tensor([4, 7]), (0.5,), (0.5,))[1][1]
        7
    """

    images: Images
    labels: Tensor
    mean: Sequence[float]
    std: Sequence[float]
    augment: Augment | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def in_memory(self) -> bool:
        """Whether the images are a tensor, or were decoded before."""
        return bool(self.images.decoded) if isinstance(self.images, Photos) else isinstance(self.images, Tensor)

    def fetch(self, keys: Sequence[Key]) -> Fetched:
        """The images of a batch and their labels, and what each drew."""
        epochs, indices = split_keys(keys)
        labels = self.labels.index_select(0, torch.tensor(indices))
        if self.augment is None or epochs is None:
            return Fetched(self._read(indices), labels)
        seeds = mix(AUGMENT, self.seed, epochs, indices).tolist()
        if isinstance(self.images, Photos):
            (side,) = begin(self.augment, ([(self.images.stored(index),)] for index in indices), seeds)
            images, drawn = gather(side, self.augment, self.images.frame.size, self.images.fitted)
        else:
            images = self._read(indices)
            (side,) = begin(self.augment, ([(image,)] for image in images.unbind()), seeds)
            images, drawn = gather(side, self.augment, size_of(images), lambda image: image)
        return Fetched(images, labels, (drawn, ()))

    def _read(self, indices: list[int]) -> Tensor:
        # index_select takes a twentieth of the time of an index that is a list
        return (
            self.images.index_select(0, torch.tensor(indices))
            if isinstance(self.images, Tensor)
            else self.images[indices]
        )


@define(eq=False)
class SeededSet(Dataset[Any]):
    """Somebody else's dataset, asked by (epoch, index) or by index: chance is seeded per item, and restored after it.

    Seeded are the global generators of `torch`, `random` and `numpy.random`. What an item draws from them depends on
    nothing but the seed, the epoch (0 where the key is an index) and the index, so neither on the number of loader
    processes nor on whether training was interrupted. A generator that the dataset keeps for itself is its own affair.

    Args:
        dataset: map-style: ``len(dataset)`` and ``dataset[index]``.
        seed: seeds each item together with its epoch and index.

    Example:
        >>> SeededSet([torch.zeros(3), torch.ones(3)])[(5, 1)]
        tensor([1., 1., 1.])
    """

    dataset: Any
    seed: int = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        seed = int(mix(AUGMENT, self.seed, epoch, index)[0])
        with torch_state_kept(), _other_states_kept():
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # all that it takes
            return self.dataset[index]


@contextmanager
def _other_states_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
