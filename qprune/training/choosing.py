"""Which channels a group of sites keeps, chosen by their scores when it is due."""

from collections.abc import Sequence

from qprune.errors import PlanError, TrainingError
from qprune.functional import joint_score
from qprune.importances import Measured, Scored
from qprune.layers import ChannelMask, Site


def coupled_groups(sites: Sequence[Site]) -> dict[tuple[str, ...], list[Site]]:
    """The sites of each group of coupled masks, by what the masks know their group by."""
    groups: dict[tuple[str, ...], list[Site]] = {}
    for site in sites:
        if site.mask is not None and site.mask.coupled:
            groups.setdefault(site.mask.coupled, []).append(site)
    return groups


def choose(group: Sequence[Site], sparsity: float, step: int, seed: int) -> None:
    """Refresh coupled masks with one choice for all of them; most are a group of one."""
    masks = [site.mask for site in group if site.mask is not None]
    for site, mask in zip(group, masks, strict=True):
        _score(site, mask, step, seed)
    score = joint_score([mask.score for mask in masks]) if len(masks) > 1 else None
    try:
        for mask in masks:
            mask.refresh(sparsity, score)
    except ValueError as error:
        wrong = next((site for site, mask in zip(group, masks, strict=True) if mask.score.isnan().any()), group[0])
        raise TrainingError(f"{wrong.name}, step {step}: {error}") from error


def _score(site: Site, mask: ChannelMask, step: int, seed: int) -> None:
    ranking = mask.ranking
    if isinstance(ranking, Scored):
        mask.score.copy_(ranking.score(site, seed))
    elif isinstance(ranking, Measured) and mask.seen == 0:
        raise PlanError(f"{site.name} is due at step {step}, but {ranking.unreached}.")
