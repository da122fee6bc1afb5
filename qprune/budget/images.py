"""Images to measure on: a few hundred of those that a network was trained on, the same for every measurement."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from qprune.data import eval_loader, explaining_lost_loaders
from qprune.data.seeds import ORDER, permutation
from qprune.errors import DataError

BATCH = 64  # about as many as statistics of normalizations are usually taken over


def take_images(part: Any, count: int, *, seed: int = 0, batch: int = BATCH) -> list[Tensor]:
    """Batches of images, without their labels and without augmentation.

    Args:
        part: a dataset, of which they are drawn by chance; or a loader, of which the first are taken.
        count: how many; all of them if there are fewer.
        seed: of the draw.
        batch: the most in one batch; all have as many, but for one.

    Raises:
        DataError: for less than one image, or if there is none.

    Example:
        >>> pairs = [(torch.zeros(3, 8, 8), 0)] * 100
        >>> [len(images) for images in take_images(pairs, 70)]
        [35, 35]
    """
    if count < 1:
        raise DataError(f"images must be at least 1, better a few hundred; received {count}.")
    if not isinstance(part, DataLoader):
        chosen = permutation(len(part), ORDER, seed)[:count].tolist()
        part = eval_loader(Subset(part, chosen), batch=batch)
    images, found = [], 0
    with explaining_lost_loaders():
        for each in part:
            images.append(_first(each))
            found += len(images[-1])
            if found >= count:
                break
    if not found:
        raise DataError("There are no images to measure on: the loader gave no batch.")
    taken = torch.cat(images)[:count]
    # no small rest: the statistics of one image are those of nothing
    return list(taken.chunk(-(-len(taken) // batch)))


def _first(batch: Any) -> Tensor:
    while isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise DataError(f"A batch must begin with its images, a tensor; it holds a {type(batch).__name__}.")
    return batch
