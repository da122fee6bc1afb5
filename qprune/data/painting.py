"""Label maps in the colours of their classes."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from qprune.data.info import IGNORE
from qprune.data.palettes import Colour


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
    return painted(labels, _table_on(tuple(palette), labels.device))


def painted(labels: Tensor, table: Tensor) -> Tensor:
    """Label maps in the colours of a table."""
    return table[labels.long()].movedim(-1, -3).contiguous()


@cache
def _table_on(palette: tuple[Colour, ...], device: torch.device) -> Tensor:
    return colour_table(palette).to(device)  # once, since that waits for a GPU


def colour_table(palette: Sequence[Colour]) -> Tensor:
    """The colour of each label as bytes (256, 3), black where there is no class."""
    table = torch.zeros(IGNORE + 1, 3, dtype=torch.uint8)
    table[: len(palette)] = torch.tensor(palette, dtype=torch.uint8)
    return table
