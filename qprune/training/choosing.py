"""Which channels the masks keep that are due at a step, chosen by their scores."""

from collections.abc import Sequence
from itertools import islice

from torch import Tensor

from qprune.errors import PlanError, TrainingError
from qprune.functional import NOT_NUMBERS, joint_score, kept_channels
from qprune.host import on_host
from qprune.importances import Measured, Scored
from qprune.layers import ChannelMask, Site


def coupled_groups(sites: Sequence[Site]) -> dict[tuple[str, ...], list[Site]]:
    """The sites of each group of coupled masks, by what the masks know their group by."""
    groups: dict[tuple[str, ...], list[Site]] = {}
    for site in sites:
        if site.mask is not None and site.mask.coupled:
            groups.setdefault(site.mask.coupled, []).append(site)
    return groups


class Choice:
    """What coupled masks that are due at a step are to keep; most masks are a group of one.

    It is made in three parts, because to look at numbers waits for the device: all choices of a step are begun, then
    their `facts` are looked at together, then each is checked and made. The facts are whether scores hold NaN, those of
    each mask and then the joint ones, and how many steps each mask measured.
    """

    def __init__(self, group: Sequence[Site], sparsity: float, seed: int) -> None:
        self.group, self.sparsity = group, sparsity
        self._masks = [site.mask for site in group if site.mask is not None]
        for site, mask in zip(group, self._masks, strict=True):
            if isinstance(mask.ranking, Scored):
                mask.score.copy_(mask.ranking.score(site, seed), non_blocking=True)
        scores = [mask.score for mask in self._masks]
        self._joint = joint_score(scores) if len(group) > 1 else None
        scores += [] if self._joint is None else [self._joint]
        self.facts = [*(score.isnan().any() for score in scores), *(mask.seen for mask in self._masks)]

    def check(self, known: Sequence[Tensor], step: int | None) -> None:
        """Refuse a choice that cannot be made, by its `facts` on the host."""
        count = len(self.group)
        broken, seen = known[:-count], known[-count:]
        for site, mask, times in zip(self.group, self._masks, seen, strict=True):
            if isinstance(mask.ranking, Measured) and times == 0:
                raise PlanError(f"{site.name} is due at step {step}, but {mask.ranking.unreached}.")
        if any(broken):
            wrong = next((site for site, bad in zip(self.group, broken, strict=False) if bad), self.group[0])
            raise TrainingError(f"{wrong.name}, step {step}: {NOT_NUMBERS}")

    def make(self) -> None:
        """Refresh the masks."""
        for mask in self._masks:
            mask.refresh(self.sparsity, self._joint, checked=True)


def look(
    sites: Sequence[Site], choices: Sequence[Choice] = (), starting: Sequence[Site] = (), step: int | None = None
) -> None:
    """Check what is due, and find out which quantizers are active: here, and only here, a step waits for a GPU."""
    quants = [site.quant for site in sites if site.quant is not None]
    facts = [fact for choice in choices for fact in choice.facts]
    seen = [site.quant.seen for site in starting if site.quant is not None]
    known = iter(on_host([*facts, *seen, *(quant.active for quant in quants)]))
    for choice in choices:
        choice.check(list(islice(known, len(choice.facts))), step)
    for site, times in zip(starting, islice(known, len(seen)), strict=True):
        if times == 0:
            raise PlanError(f"{site.name} is due at step {step}, but no training forward has reached it yet.")
    for quant, active in zip(quants, known, strict=True):
        quant.told_active = bool(active)


def sparsity_of(mask: ChannelMask, sparsity: float) -> float:
    """The share of channels that a mask drops where it is to drop ``sparsity``; without a look at the mask."""
    return 1 - kept_channels(mask.channels, sparsity, mask.multiple_of, mask.groups) / mask.channels
