"""Counting which class was taken for which."""

import torch
from torch import Tensor


def count_pairs(truth: Tensor, told: Tensor, classes: int) -> Tensor:
    """How often each class, by rows, was told to be each class, by columns; labels that are no class are left out.

    Both are int64 of one shape; so is the result, (classes, classes).

    Example:
        >>> count_pairs(torch.tensor([0, 1, 1, 255]), torch.tensor([0, 0, 1, 1]), classes=2).tolist()
        [[1, 0], [1, 1]]
    """
    known = (truth >= 0) & (truth < classes)
    pairs = (truth * classes + told).where(known, classes**2).flatten()  # one place more, for labels that are no class
    # not bincount, whose size depends on the values, nor values picked out by a mask: for both a GPU must wait
    counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=truth.device)
    return counts.scatter_add_(0, pairs, torch.ones_like(pairs))[:-1].view(classes, classes)
