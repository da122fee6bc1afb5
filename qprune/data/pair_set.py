"""A dataset of pairs: an image and its labels, or an image and the one that it is to become."""

from collections.abc import Sequence
from itertools import chain

import torch
from attrs import define
from torch import Tensor
from torch.utils.data import Dataset

from qprune.data.datasets import Key, normalized, torch_state_kept
from qprune.data.info import IGNORE
from qprune.data.joint import JointAugment
from qprune.data.palettes import Colour
from qprune.data.resizing import fit
from qprune.data.seeds import AUGMENT, PARTNER, mix
from qprune.data.source import Pictures
from qprune.host import constant


@define(eq=False)
class PairSet(Dataset[tuple[Tensor, Tensor]]):
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
    augment: JointAugment | None = None
    seed: int = 0
    unpaired: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        if isinstance(key, tuple):
            first, second = self._augmented(*key)
        else:
            first, second = self.inputs[int(key)], self.targets[int(key) % len(self.targets)]
        return self._finish(first), self._finish(second)

    def _augmented(self, epoch: int, index: int) -> tuple[Tensor, ...]:
        partner = index
        if self.unpaired:
            partner = int(mix(PARTNER, self.seed, epoch, index)[0]) % len(self.targets)
        pair = self.inputs[index], self.targets[partner]
        if self.augment is None:
            return pair
        with torch_state_kept():
            torch.default_generator.manual_seed(int(mix(AUGMENT, self.seed, epoch, index)[0]))
            return self.augment(pair[0]) + self.augment(pair[1]) if self.unpaired else self.augment(*pair)

    def _finish(self, picture: Tensor) -> Tensor:
        picture = fit(picture, self.size)
        if picture.ndim == 2:
            if not self.palette:
                return picture.long()
            picture = colour(picture, self.palette)
        return normalized(picture, self.mean, self.std)


def colour(labels: Tensor, palette: Sequence[Colour]) -> Tensor:
    """Paint a label map in the colours of its classes, void black.

    Args:
        labels: whole numbers, (H, W) or (N, H, W); void is 255.
        palette: one (red, green, blue) per class.

    Returns:
        uint8, (3, H, W) or (N, 3, H, W).

    Example:
        >>> colour(torch.tensor([[1, 255]]), [(1, 2, 3), (4, 5, 6)])[:, 0, 0].tolist()
        [4, 5, 6]
    """
    table = torch.zeros(IGNORE + 1, 3, dtype=torch.uint8, device=labels.device)
    table[: len(palette)] = constant(tuple(chain.from_iterable(palette)), labels.device).view(-1, 3)
    return table[labels.long()].movedim(-1, -3).contiguous()
