"""A dataset of image files of any size, which are augmented as they are stored."""

from collections.abc import Sequence

import torch
from attrs import define
from torch import Tensor

from qprune.data.datasets import ImageSet, Key, normalized, torch_state_kept
from qprune.data.decode import Photos
from qprune.data.seeds import AUGMENT, mix


@define(eq=False)
class PhotoSet(ImageSet):
    """An `ImageSet` of files: what augmentation makes of an image as it is stored comes to the size of all after it.

    RandomResizedCrop so sees the whole photo in its own resolution, and what it gives has its size already.

    Args:
        images: the files; otherwise as of `ImageSet`.

    Example:
        >>> from qprune.data.decode import Frame
        >>> photos = Photos([Path("cat.png")], Frame((224, 224), resize=256))
        >>> PhotoSet(photos, torch.tensor([4]), (0.5,) * 3, (0.5,) * 3)[0][0].shape
        torch.Size([3, 224, 224])
    """

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Tensor, int]]:
        return [self._item(*(key if isinstance(key, tuple) else (None, int(key)))) for key in keys]

    def _item(self, epoch: int | None, index: int) -> tuple[Tensor, int]:
        plain = epoch is None or self.augment is None
        pixels = self.images[[index]][0] if plain else self._augmented(epoch or 0, index)
        return normalized(pixels, self.mean, self.std), int(self.labels[index])

    def _augmented(self, epoch: int, index: int) -> Tensor:
        assert self.augment is not None
        assert isinstance(self.images, Photos)
        stored = self.images.stored(index)
        with torch_state_kept():
            torch.default_generator.manual_seed(int(mix(AUGMENT, self.seed, epoch, index)[0]))
            return self.images.fitted(self.augment(stored))
