"""Merges the measurements of a step over processes, then commits them."""

from collections.abc import Iterable, Sequence

import torch

from qprune.layers import ChannelMask, FakeQuant, Scores, ranges_of
from qprune.training import ranks

Part = ChannelMask | FakeQuant


class Measurements:
    """The masks and quantizers, on one device, that measure at present, committed together after each step."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        parts = list(parts)
        self.masks = [part for part in parts if isinstance(part, ChannelMask)]
        self.quants = [part for part in parts if isinstance(part, FakeQuant)]
        self._together = [*ranges_of(self.quants), Scores(self.masks)]

    def commit(self) -> None:
        """Fold what a step measured into the running means, the same in every process."""
        if ranks.world() > 1:
            _merge_masks(self.masks)
            _merge_quants(self.quants)
        for together in self._together:
            together.commit()


@torch.no_grad()
def _merge_masks(masks: Sequence[ChannelMask]) -> None:
    """Average the scores over the values of all processes, as if one had computed the whole batch."""
    if not masks:
        return
    weighted = [mask.pending_score.double() * mask.pending_count for mask in masks]
    totals = ranks.summed([*weighted, *(mask.pending_count for mask in masks)])
    for mask, score, count in zip(masks, totals[: len(masks)], totals[len(masks) :], strict=True):
        # a process's loss is the mean over its own samples: its gradients are those of the whole batch, times so many
        own = ranks.world() ** mask.ranking.gradient_power
        mask.pending_score.copy_(score / count.clamp(min=1) / own)
        mask.pending_count.copy_(count)


@torch.no_grad()
def _merge_quants(quants: Sequence[FakeQuant]) -> None:
    """Widen the ranges to the values of all processes."""
    if not quants:
        return
    ends = ranks.lowest([*(quant.pending_low for quant in quants), *(-quant.pending_high for quant in quants)])
    for quant, low, negated_high in zip(quants, ends[: len(quants)], ends[len(quants) :], strict=True):
        quant.pending_low.copy_(low)
        quant.pending_high.copy_(-negated_high)
