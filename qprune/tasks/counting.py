"""Counting which class was taken for which."""

import torch
from torch import Tensor


def count_pairs(truth: Tensor, told: Tensor, classes: int) -> Tensor:
    """How often each class, by rows, was told to be each class, by columns; labels that are no class are left out.

    Args:
        truth: int64, any shape.
        told: int64 of the same shape, each a class.
        classes: how many there are.

    Returns:
        int64 (classes, classes), on the CPU.

    Example:
        >>> count_pairs(torch.tensor([0, 1, 1, 255]), torch.tensor([0, 0, 1, 1]), classes=2).tolist()
        [[1, 0], [1, 1]]
    """
    known = (truth >= 0) & (truth < classes)
    pairs = truth[known] * classes + told[known]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes).cpu()
