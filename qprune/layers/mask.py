"""`ChannelMask`: keeps or drops whole channels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qprune.functional import keep_top
from qprune.importances import IMPORTANCES, Importance, Measured
from qprune.layers.compressor import Compressor, measure
from qprune.layers.scores import Scores
from qprune.layers.strips import Commits
from qprune.masking import in_torch_func, mask_channels
from qprune.schedules import PruneSchedule

torch.fx.wrap("mask_channels")  # one operation to symbolic tracing, which cannot know a dtype


class ChannelMask(Compressor):
    """Sets dropped channels to exactly 0 and keeps a running mean of every channel's magnitude.

    Input ``(N, C, ...)`` with channels at ``axis``, output the same shape and dtype. In training, while ``measuring``,
    each forward adds the channel scores of its input, taken before masking so that a dropped channel may return until
    the mask freezes; where the importance needs gradients, the backward that follows adds them. The driver sets the
    scores of importances that are not measured.

    Args:
        channels: number of channels C.
        axis: the channel axis of the input.
        importance: how channels are ranked, a word of `qprune.importances.IMPORTANCES`.
        multiple_of: the kept count is rounded up to a multiple of this.
        schedule: when to measure and choose; asked by `ScheduleDriver`.
        tied: for the importance ``"tied"``, pairs ``(site, offset)`` of the masks that this one follows.
        device: where the buffers live.

    Attributes:
        keep: bool ``(C,)``, true for kept channels; all true at first.
        score: float32 ``(C,)``, running mean of the steps' scores; that of a step is the mean over all values that its
            forwards saw, in every process.
        seen: how many steps it holds.
        coupled: the sites, its own among them, whose masks choose together and are the same; empty if it chooses alone.
        groups: into how many equal parts the channels fall, of each of which as many are kept; more than 1 where a
            convolution of groups reads or makes them, which must be of equal size.

    Raises:
        ValueError: if ``channels`` or ``multiple_of`` is below 1 or ``importance`` is unknown.

    Source: Zhang, Colbert, Das (2022).

    Example:
        >>> mask = ChannelMask(4)
        >>> mask.refresh(0.5)
        >>> mask(torch.ones(1, 4, 1))[0, :, 0]
        tensor([1., 1., 0., 0.])
    """

    keep: Tensor
    score: Tensor
    seen: Tensor
    pending_score: Tensor
    pending_count: Tensor
    coupled: tuple[str, ...] = ()
    groups: int = 1

    def __init__(
        self,
        channels: int,
        *,
        axis: int = 1,
        importance: str = "activation-l1",
        multiple_of: int = 1,
        schedule: PruneSchedule | None = None,
        tied: tuple[tuple[str, int], ...] = (),
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if channels < 1 or multiple_of < 1:
            raise ValueError(f"channels and multiple_of must be at least 1; received {channels} and {multiple_of}")
        if importance not in IMPORTANCES:
            raise ValueError(f"importance must be one of {', '.join(IMPORTANCES)}; received {importance!r}")
        self.channels, self.axis = channels, axis
        self.importance, self.multiple_of, self.schedule, self.tied = importance, multiple_of, schedule, tied
        self.register_state(device)

    def fresh(self) -> dict[str, Tensor]:
        """Everything kept, nothing seen."""
        return {
            "keep": torch.ones(self.channels, dtype=torch.bool),
            "score": torch.zeros(self.channels),
            "seen": torch.zeros((), dtype=torch.int64),
        }

    def unsaved(self) -> dict[str, Tensor]:
        """No score of no values."""
        return {"pending_score": torch.zeros(self.channels), "pending_count": torch.zeros((), dtype=torch.int64)}

    def forward(self, x: Tensor) -> Tensor:
        """Measure if asked to, then zero the dropped channels."""
        ranking = self.ranking
        if not (self.training and self.measuring and isinstance(ranking, Measured) and x.numel()):
            return mask_channels(x, self.keep, self.axis)
        if ranking.gradient_power:
            return self._mask_and_await_gradient(x, ranking)
        measure(lambda values: self._add(ranking, values), x)
        return mask_channels(x, self.keep, self.axis)

    @property
    def ranking(self) -> Importance:
        """How the channels are ranked: the object that the word ``importance`` stands for."""
        return IMPORTANCES[self.importance]

    @property
    def watching(self) -> bool:
        """Whether a forward, or its backward, adds to the accumulators now: in training, while ``measuring``."""
        return self.training and self.measuring and isinstance(self.ranking, Measured)

    def _mask_and_await_gradient(self, x: Tensor, ranking: Measured) -> Tensor:
        if torch.is_grad_enabled() and not x.requires_grad and not in_torch_func():
            x = x.detach().requires_grad_()  # an image, or behind frozen layers: its gradient is wanted here alone
        y = mask_channels(x, self.keep, self.axis)
        if y.requires_grad:
            values = x.detach().clone()  # layers behind may overwrite x before the backward
            y.register_hook(lambda gradient: self._take_gradient(values, gradient, ranking))
        return y

    def _take_gradient(self, x: Tensor, gradient: Tensor, ranking: Measured) -> None:
        if self.measuring:  # a backward may come long after, when nobody asks any more
            measure(lambda *both: self._add(ranking, *both), x, gradient)

    @torch.no_grad()
    def _add(self, ranking: Measured, x: Tensor, gradient: Tensor | None = None) -> None:
        measured = ranking.measure(x, self.axis, gradient)
        add_scores(self.pending_score, self.pending_count, measured, x.numel() // self.channels)

    def commit(self) -> None:
        """Move what the step's forwards measured into the running mean; every step counts the same."""
        commit_masks([self])

    def select(self, channels: Tensor) -> None:
        """Go on with these channels alone, given by their numbers."""
        for name in ("keep", "score", "pending_score"):
            buffer = getattr(self, name)
            setattr(self, name, buffer[channels.to(buffer.device, non_blocking=True)])
        if self.groups > 1:
            left = (channels // (self.channels // self.groups)).bincount(minlength=self.groups)
            left = left[left > 0]
            self.groups = len(left) if (left == left[0]).all() else 1
        self.channels = len(channels)

    @torch.no_grad()
    def refresh(self, sparsity: float, score: Tensor | None = None, *, checked: bool = False) -> None:
        """Choose anew which channels to keep; see `qprune.functional.keep_top`.

        Args:
            sparsity: share of channels to drop.
            score: by which to choose; by default the mask's own.
            checked: the scores hold no NaN, as somebody has seen.
        """
        score = self.score if score is None else score
        self.keep.copy_(keep_top(score, sparsity, self.multiple_of, self.groups, checked=checked))

    @property
    def sparsity(self) -> float:
        """The share of channels dropped now; reads the mask back from its device."""
        return 1 - self.keep.sum().item() / self.channels

    def extra_repr(self) -> str:
        """Channels, importance and schedule."""
        return f"{self.channels}, importance={self.importance!r}, schedule={self.schedule}"


def add_scores(score: Tensor, count: Tensor, measured: Tensor, values: int) -> None:
    """Add what a forward measured to the accumulators of a step.

    Args:
        score: float32 ``(C,)``, the mean so far.
        count: int64, of so many values per channel.
        measured: float32 ``(C,)``, the mean of the forward.
        values: of so many values per channel.

    Example:
        >>> score, count = torch.tensor([2.0]), torch.tensor(1)
        >>> add_scores(score, count, torch.tensor([6.0]), 3)
        >>> score, count
        (tensor([5.]), tensor(4))
    """
    count += values
    # a mean, not a sum: what one forward measured stays as it is, to the bit
    score.lerp_(measured, values / count)


def commit_masks(masks: Sequence[ChannelMask]) -> None:
    """Commit many masks together, once; for those of many steps keep the `Commits` of their `Scores`.

    Args:
        masks: on one device.

    Example:
        >>> commit_masks([ChannelMask(2), ChannelMask(3)])
    """
    Commits([Scores(masks)]).commit()


def follow_sources(masks: Mapping[str, ChannelMask]) -> None:
    """Let every mask that follows others take over what those dropped.

    Args:
        masks: by the names of their sites. Of a source that is not among them, what was taken over before stays.

    Example:
        >>> masks = {"a.weight": ChannelMask(2), "b.output": ChannelMask(2, importance="tied", tied=(("a.weight", 0),))}
        >>> masks["a.weight"].keep[0] = False
        >>> follow_sources(masks)
        >>> masks["b.output"].keep
        tensor([False,  True])
    """
    for mask in masks.values():
        for source, offset in mask.tied:
            if source in masks:
                keep = masks[source].keep
                mask.keep[offset : offset + len(keep)] = keep
