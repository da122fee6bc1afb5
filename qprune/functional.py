"""Which channels to keep, by their scores: pure tensor functions that can be checked by hand."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NOT_NUMBERS = "scores hold NaN: the network's values are no longer numbers; lower the learning rate"


def keep_top(score: Tensor, sparsity: float, multiple_of: int = 1, groups: int = 1, *, checked: bool = False) -> Tensor:
    """Choose the channels to keep: all but the ``floor(sparsity * C + 1e-9)`` lowest scores, and always at least one.

    Of equal scores the lower index is kept.

    Args:
        score: one number per channel, shape ``(C,)``.
        sparsity: share of channels to drop, in [0, 1).
        multiple_of: the kept count is rounded up to a multiple of this (at most C), for kernels that want one.
        groups: the channels are chosen in so many equal parts, each by itself: as many are kept of each.
        checked: scores hold no NaN, as somebody has seen: to look for one waits for the device.

    Returns:
        bool of shape ``(C,)``, true for kept channels.

    Raises:
        ValueError: for a sparsity outside [0, 1), ``multiple_of`` below 1, groups of unequal size, or scores with NaN.

    Example:
        >>> keep_top(torch.tensor([0.1, 0.4, 0.4, 0.2]), 0.75)
        tensor([False,  True, False, False])
        >>> keep_top(torch.tensor([0.1, 0.4, 0.4, 0.2]), 0.5, groups=2)
        tensor([False,  True,  True, False])
    """
    kept = kept_channels(score.numel(), sparsity, multiple_of, groups) // groups
    if not checked and torch.isnan(score).any():
        raise ValueError(NOT_NUMBERS)
    order = torch.sort(score.view(groups, -1), dim=1, descending=True, stable=True).indices
    keep = torch.zeros_like(order, dtype=torch.bool)
    return keep.scatter_(1, order[:, :kept], True).view(-1)


def joint_score(scores: Sequence[Tensor]) -> Tensor:
    """One score for the channels that several masks share: the sum of theirs, each as a share of its total.

    Masks measure in units of their own (values of one layer are larger than those of another), so each says only how
    its importance is spread over the channels. Scores that are 0 everywhere say nothing.

    Args:
        scores: one per mask, at least 0, each of shape ``(C,)``.

    Returns:
        float32 of shape ``(C,)``.

    Example:
        >>> joint_score([torch.tensor([1.0, 3.0]), torch.tensor([50.0, 50.0])])
        tensor([0.7500, 1.2500])
    """
    each = torch.stack([score.float() for score in scores])
    totals = each.sum(1, keepdim=True)
    return (each / torch.where(totals == 0, 1, totals)).sum(0)


def kept_channels(channels: int, sparsity: float, multiple_of: int = 1, groups: int = 1) -> int:
    """The number of channels that remain at ``sparsity``; see `keep_top`.

    Example:
        >>> kept_channels(10, 0.75), kept_channels(10, 0.75, multiple_of=8), kept_channels(10, 0.75, groups=2)
        (3, 8, 4)
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1); received {sparsity!r}")
    if multiple_of < 1:
        raise ValueError(f"multiple_of must be at least 1; received {multiple_of!r}")
    if groups < 1 or channels % groups:
        raise ValueError(f"groups must divide the {channels} channels into equal parts; received {groups!r}")
    size, multiple = channels // groups, multiple_of // math.gcd(multiple_of, groups)
    # 1e-9: 0.7 * 10 is 6.999... in floating point and must drop 7
    kept = max(1, size - int(sparsity * size + 1e-9))
    return groups * min(size, -(-kept // multiple) * multiple)


def along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """View ``(C,)`` values so that they broadcast along ``axis`` of ``x``; a single value stays as it is.

    Example:
        >>> along(torch.ones(3), torch.zeros(2, 3, 5, 7), 1).shape
        torch.Size([3, 1, 1])
    """
    return values if values.dim() == 0 else values.view([-1] + [1] * (x.dim() - 1 - axis % x.dim()))
