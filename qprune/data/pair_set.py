"""A dataset of pairs: an image and its labels, or an image and the one that it is to become."""

from collections.abc import Sequence

import torch
from attrs import define
from torch import Tensor

from qprune.data.augment import Augment
from qprune.data.palettes import Colour
from qprune.data.pictures import Chosen
from qprune.data.resizing import fit
from qprune.data.seeds import AUGMENT, PARTNER, mix
from qprune.data.source import Pictures
from qprune.data.stored import Fetched, Key, StoredSet, begin, gather, split_keys


@define(eq=False)
class PairSet(StoredSet):
    """Pairs of pictures; augmented where the key is a pair (epoch, index), plain where it is an index.

    An item is ``(input, target)``. Images become float32 (3, H, W), ``(pixel / 255 - mean) / std``; label maps become
    int64 (H, W), or with a ``palette`` images in its colours, void black. Augmentation comes first, on pictures as they
    are stored, then the resize. All that is random of an item is drawn by (seed, epoch, index).

    Args:
        inputs: uint8 images (3, H, W) or label maps (H, W).
        targets: the same.
        size: (height, width) of every item.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        palette: one colour per class; () to leave labels as they are.
        augment: what to do to training pairs; None for nothing.
        seed: seeds the augmentation.
        unpaired: the target of a key (epoch, index) is any of the targets, augmented by itself; of an index alone it is
            the target at its place, counted from the start again where targets are fewer than inputs.

    Example:
        >>> blank = torch.zeros(3, 5, 7, dtype=torch.uint8)
        >>> PairSet([blank], [blank[0]], (5, 7), (0.5,) * 3, (0.5,) * 3)[0][1].shape
        torch.Size([5, 7])
    """

    inputs: Pictures
    targets: Pictures
    size: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    palette: Sequence[Colour] = ()
    augment: Augment | None = None
    seed: int = 0
    unpaired: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def in_memory(self) -> bool:
        """Whether the pictures were decoded before."""
        return not isinstance(self.inputs, Chosen)

    def fetch(self, keys: Sequence[Key]) -> Fetched:
        """The pictures of a batch, and what each drew."""
        epochs, indices = split_keys(keys)
        partners = self._partners(epochs, indices)
        pairs = [(self.inputs[index], self.targets[partner]) for index, partner in zip(indices, partners, strict=True)]
        if self.augment is None or epochs is None:
            inputs, targets = (
                torch.stack([self._fit(picture) for picture in side]) for side in zip(*pairs, strict=True)
            )
            return Fetched(inputs, targets)
        samples = ([(one,), (other,)] if self.unpaired else [(one, other)] for one, other in pairs)
        sides = begin(self.augment, samples, mix(AUGMENT, self.seed, epochs, indices).tolist())
        (inputs, first), (targets, second) = (gather(side, self.augment, self.size, self._fit) for side in sides)
        return Fetched(inputs, targets, (first, second))

    def _partners(self, epochs: Sequence[int] | None, indices: Sequence[int]) -> Sequence[int]:
        if self.unpaired and epochs is not None:
            return [number % len(self.targets) for number in mix(PARTNER, self.seed, epochs, indices).tolist()]
        return [index % len(self.targets) for index in indices]

    def _fit(self, picture: Tensor) -> Tensor:
        return fit(picture, self.size)
