"""Sums and concatenations as modules without parameters, so that they have a path and their outputs can be sites."""

from functools import reduce

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """Adds its inputs, as a residual connection does.

    Input: one or more tensors of one shape. Output: a tensor of that shape.

    Example:
        >>> Add()(torch.ones(2), torch.ones(2))
        tensor([2., 2.])
    """

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the sum of ``tensors``."""
        return reduce(torch.add, tensors)


class Concat(nn.Module):
    """Joins its inputs one behind the other, by default along the channels.

    Input: one or more tensors whose shapes differ in dimension ``dim`` alone. Output: the same shape, with the sum of
    their sizes in that dimension.

    Args:
        dim: the dimension along which to join; 1 is the channels of ``(N, C, H, W)``.

    Example:
        >>> Concat()(torch.zeros(2, 3), torch.zeros(2, 5)).shape
        torch.Size([2, 8])
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return ``tensors`` joined along ``dim``."""
        return torch.cat(tensors, dim=self.dim)

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"
