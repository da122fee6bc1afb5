"""`Scores`: the running channel scores of many masks, folded together."""

from typing import ClassVar

import torch

from qprune.layers.strips import JointCommit, Strip, owners


class Scores(JointCommit):
    """The running means of many masks' channel scores, folded together; every step counts the same.

    Args:
        parts: masks on one device.

    Example:
        >>> scores = Scores([ChannelMask(2), ChannelMask(3)])
        >>> scores.commit()
    """

    watched: ClassVar[str] = "score"

    def _lay_out(self) -> None:
        scores = self.buffers("score")
        self._scores = Strip(scores + self.buffers("pending_score"), rows=2)
        self._counts = Strip(self.buffers("seen") + self.buffers("pending_count"), rows=2)
        self._owner = owners([score.numel() for score in scores], scores[0].device)  # the mask of each channel
        self._score, self._pending_score = self._scores.values
        self._seen, self._count = self._counts.values

    def _fold(self) -> None:
        self._scores.read()
        self._counts.read()
        seen, count = self._counts.values.index_select(1, self._owner).unbind()
        measured = count > 0
        mean = (self._score * seen + self._pending_score) / (seen + measured)
        # where: score * seen / seen is not always score
        torch.where(measured, mean, self._score, out=self._score)
        self._seen.add_(self._count > 0)
        self._pending_score.zero_()
        self._count.zero_()
        self._scores.write()
        self._counts.write()
