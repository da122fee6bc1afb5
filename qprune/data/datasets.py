"""Map-style datasets whose training items are asked for by (epoch, index), so that chance has one source."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from attrs import define
from torch import Tensor
from torch.utils.data import Dataset

from qprune.data.augment import Augment
from qprune.data.seeds import AUGMENT, mix
from qprune.data.source import Images

Key: TypeAlias = int | tuple[int, int]


@define(eq=False)
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images and labels; augmented where the key is a pair (epoch, index), plain where it is an index.

    An item is ``(image, label)``: float32 (C, H, W), ``(pixel / 255 - mean) / std``, and an int. The augmentation of
    an item is drawn from a generator seeded by (seed, epoch, index) alone; torch's global generator is left as it was.

    Args:
        images: uint8 (N, C, H, W), or files that are decoded when indexed.
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

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Tensor, int]]:
        # DataLoader hands over a whole batch: one lookup, one normalization, and still a list for any collate.
        pairs = [key if isinstance(key, tuple) else (None, int(key)) for key in keys]
        indices = [index for _, index in pairs]
        images = self.images[indices]
        if self.augment is not None:
            self._augment(images, pairs)
        return list(zip(normalized(images, self.mean, self.std).unbind(), self.labels[indices].tolist(), strict=True))

    def _augment(self, images: Tensor, pairs: Sequence[tuple[int | None, int]]) -> None:
        assert self.augment is not None
        epochs, indices = zip(*((epoch or 0, index) for epoch, index in pairs), strict=True)
        seeds = mix(AUGMENT, self.seed, epochs, indices).tolist()
        with torch_state_kept():
            for place, (epoch, _) in enumerate(pairs):
                if epoch is not None:
                    torch.default_generator.manual_seed(seeds[place])
                    images[place] = self.augment(images[place])


def normalized(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images ``(..., C, H, W)`` of bytes as a network reads them: ``(pixel / 255 - mean) / std``."""
    shift, scale = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, std))
    return pixels.float().div_(255).sub_(shift).div_(scale)


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
def torch_state_kept() -> Iterator[None]:
    """Give the global generator its state back on leaving."""
    # torch.manual_seed and fork_rng also visit every accelerator, which takes 80 times as long; pixels are on the CPU.
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


@contextmanager
def _other_states_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
