"""Batch normalization of tensors without values."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def empty_normalized(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *numbers: Any,
    **named: Any,
) -> Tensor:
    """What `torch.nn.functional.batch_norm` gives on the meta device, where torch itself takes a hundred steps.

    Its arguments are those of the function. Where it is to measure the batch, or is given what does not fit, that is
    asked.

    Example:
        >>> x, ones = torch.zeros(2, 3, 5, 7, device="meta"), torch.ones(3, device="meta")
        >>> empty_normalized(x, ones, ones).shape
        torch.Size([2, 3, 5, 7])
    """
    vectors = [each for each in (running_mean, running_var, weight, bias) if each is not None]
    measures = training or running_mean is None or running_var is None
    if measures or x.dim() < 2 or not x.is_meta or any(each.shape != x.shape[1:2] for each in vectors):
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, *numbers, **named)
    return torch.empty_like(x)
