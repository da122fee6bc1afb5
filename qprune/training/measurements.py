"""What the forwards of a step measured: merged over processes, then committed or forgotten."""

from collections.abc import Iterable, Sequence

import torch

from qprune.layers import ChannelMask, FakeQuant, commit_all, commit_masks
from qprune.training import ranks

Part = ChannelMask | FakeQuant


def commit(parts: Iterable[Part]) -> None:
    """Fold what was measured into the running means, the same in every process.

    Example:
        >>> commit([layer.input_mask, layer.weight_quant])
    """
    parts = list(parts)
    masks = [part for part in parts if isinstance(part, ChannelMask)]
    quants = [part for part in parts if isinstance(part, FakeQuant)]
    if ranks.world() > 1:
        _merge_masks(masks)
        _merge_quants(quants)
    commit_all(quants)
    commit_masks(masks)


@torch.no_grad()
def _merge_masks(masks: Sequence[ChannelMask]) -> None:
    """The mean over all values that any process saw."""
    if not masks:
        return
    weighted = [mask.pending_score.double() * mask.pending_count for mask in masks]
    totals = ranks.summed([*weighted, *(mask.pending_count for mask in masks)])
    for mask, score, count in zip(masks, totals[: len(masks)], totals[len(masks) :], strict=True):
        mask.pending_score.copy_(score / count.clamp(min=1))
        mask.pending_count.copy_(count)


@torch.no_grad()
def _merge_quants(quants: Sequence[FakeQuant]) -> None:
    """The range of all values that any process saw."""
    if not quants:
        return
    ends = ranks.lowest([*(quant.pending_low for quant in quants), *(-quant.pending_high for quant in quants)])
    for quant, low, negated_high in zip(quants, ends[: len(quants)], ends[len(quants) :], strict=True):
        quant.pending_low.copy_(low)
        quant.pending_high.copy_(-negated_high)
