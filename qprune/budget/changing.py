"""A copy of a network with groups of channels pruned, or one of them of fewer bits; nothing is trained."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from qprune.assemble import swap
from qprune.budget.groups import Group
from qprune.budget.rules import prune_rules, quantize_rules
from qprune.calibration import average_statistics, calibrate
from qprune.errors import PlanError
from qprune.functional import joint_score
from qprune.importances import Measured, Scored
from qprune.layers import commit_masks, follow_sources, sites

Batches = Sequence[Tensor]
AT_ONCE = {"kind": "one-shot", "at": 0}


def renormalized(net: nn.Module, batches: Batches) -> nn.Module:
    """A copy in eval mode whose normalizations have the statistics of these images."""
    copied = copy.deepcopy(net).eval()
    average_statistics(copied, batches)
    return copied


def masked(net: nn.Module, batches: Batches, groups: Sequence[Group], importance: str, seed: int = 0) -> nn.Module:
    """A copy in eval mode with the masks of some groups, their channels ranked on the images and all of them kept."""
    rules = prune_rules(dict.fromkeys(groups, 0), importance, AT_ONCE)
    copied = swap(net, batches[0], prune=rules).eval()
    _rank(copied, batches, seed)
    return copied


def pruned(masked_net: nn.Module, batches: Batches, ratios: Mapping[Group, float]) -> nn.Module:
    """A copy of what `masked` gives in which shares of the channels are dropped, statistics taken anew.

    Groups that are not named stay as they are.
    """
    copied = copy.deepcopy(masked_net)
    drop(copied, ratios)
    average_statistics(copied, batches)
    return copied


def drop(masked_net: nn.Module, ratios: Mapping[Group, float]) -> None:
    """Choose the channels of these groups anew, in place, by the scores that their masks have."""
    masks = {site.name: site.mask for site in sites(masked_net) if site.mask is not None}
    for group, ratio in ratios.items():
        own = [masks[f"{path}.output".lstrip(".")] for path in group.members]
        score = joint_score([mask.score for mask in own]) if len(own) > 1 else None
        for mask in own:
            mask.refresh(ratio, score)
    follow_sources(masks)


def quantized(net: nn.Module, batches: Batches, group: Group, bits: int) -> nn.Module:
    """A copy in eval mode with the weights that make a group, and its values, of 2 to 8 bits; statistics taken anew.

    Weights are rounded with one range per channel, values with one range at each member, measured on the images.
    """
    copied = swap(net, batches[0], quantize=quantize_rules({group: bits}, starts=(0, 0))).eval()
    return calibrate(copied, batches, norms=True)


def fitted(net: nn.Module, example: Tensor, able: Sequence[Group], groups: Sequence[Group]) -> nn.Module:
    """A copy in eval mode with masks of the groups that are able to lose channels, and quantizers of all.

    Nothing is chosen or measured, and of the example only the shape matters.
    """
    prune = prune_rules({group: 0 for group in able if group.members}, "activation-l1", AT_ONCE)
    return swap(net, example, prune=prune, quantize=quantize_rules(dict.fromkeys(groups, 8), starts=(0, 0))).eval()


def problems_of(net: nn.Module, example: Tensor, groups: Sequence[Group]) -> dict[Group, str]:
    """The groups that have members and cannot be masked, with the reason."""
    able = [group for group in groups if group.members]
    if not _problem(net, example, able):
        return {}
    return {group: problem for group in able if (problem := _problem(net, example, [group]))}


def _problem(net: nn.Module, example: Tensor, groups: Sequence[Group]) -> str:
    try:
        swap(net, example, prune=prune_rules(dict.fromkeys(groups, 0), "activation-l1", AT_ONCE))
    except PlanError as error:
        return str(error)
    return ""


@torch.no_grad()
def _rank(net: nn.Module, batches: Batches, seed: int) -> None:
    masks = [(site, site.mask) for site in sites(net) if site.mask is not None]
    choosing = [(site, mask) for site, mask in masks if not mask.ranking.follows]
    measured = [mask for _, mask in choosing if isinstance(mask.ranking, Measured)]
    for mask in measured:
        mask.training = mask.measuring = True  # nothing else of the network is in training
    for batch in batches if measured else ():
        net(batch)
        commit_masks(measured)
    for mask in measured:
        mask.training = mask.measuring = False
    for site, mask in choosing:
        if isinstance(mask.ranking, Scored):
            mask.score.copy_(mask.ranking.score(site, seed))
