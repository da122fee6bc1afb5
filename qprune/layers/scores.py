"""`Scores`: the running channel scores of many masks, folded together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from qprune.layers.strips import Exchange, JointCommit, Strip, owners

if TYPE_CHECKING:
    from qprune.layers.mask import ChannelMask


class Scores(JointCommit):
    """The running means of many masks' channel scores, folded together; every step counts the same.

    Args:
        masks: on one device.

    Example:
        >>> Commits([Scores([ChannelMask(2), ChannelMask(3)])]).commit()
    """

    watched: ClassVar[str] = "score"

    def __init__(self, masks: "Sequence[ChannelMask]") -> None:
        super().__init__(masks)
        self.masks = masks

    def gather(self) -> None:
        """Strips of scores and of counts, measured ones first; these begin the next step at 0."""
        self._scores = Strip([self.buffers("pending_score"), self.buffers("score")], left=[0.0])
        self._counts = Strip([self.buffers("pending_count"), self.buffers("seen")], left=[0])
        self.strips = self._scores, self._counts

    def lay_out(self) -> None:
        """Name the rows, and look up the mask of each channel."""
        self._pending_score, self._score = self._scores.values
        self._count, self._seen = self._counts.values
        self._owner = owners([score.numel() for score in self.buffers("score")], self._score.device)
        self._powers = [mask.ranking.gradient_power for mask in self.masks]
        self._own: Tensor | None = None

    def merge(self, exchange: Exchange) -> None:
        """Average the scores over the values of all processes, as if one had computed the whole batch."""
        if self._own is None:
            # a process's loss is the mean over its own samples: its gradients are those of the whole batch, times these
            factors = torch.tensor([float(exchange.world() ** power) for power in self._powers])
            self._own = factors.to(self._owner.device, non_blocking=True)[self._owner]
        weighted = self._pending_score.double() * self._count[self._owner]
        totals, counts = exchange.summed(torch.cat([weighted, self._count])).split([len(weighted), len(self._count)])
        self._pending_score.copy_(totals / counts[self._owner].clamp(min=1) / self._own)
        self._count.copy_(counts)

    def fold(self) -> None:
        """The mean of the steps that measured anything, this one among them."""
        count, seen = self._counts.values.index_select(1, self._owner).unbind()
        measured = count > 0
        mean = (self._score * seen + self._pending_score) / (seen + measured)
        # where: score * seen / seen is not always score
        torch.where(measured, mean, self._score, out=self._score)
        self._seen.add_(self._count > 0)
