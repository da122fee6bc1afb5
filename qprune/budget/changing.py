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
from qprune.layers import ChannelMask, Site, commit_masks, follow_sources, sites

Batches = Sequence[Tensor]
AT_ONCE = {"kind": "one-shot", "at": 0}


def renormalized(net: nn.Module, batches: Batches) -> nn.Module:
    """A copy in eval mode whose normalizations have the statistics of these images.

    Example:
        >>> renormalized(nn.BatchNorm2d(1), [torch.full((2, 1, 1, 1), 3.0)]).running_mean
        tensor([3.])
    """
    copied = copy.deepcopy(net).eval()
    average_statistics(copied, batches)
    return copied


def masked(net: nn.Module, batches: Batches, groups: Sequence[Group], importance: str, seed: int = 0) -> nn.Module:
    """A copy in eval mode with the masks of some groups, their channels ranked and all of them kept.

    Args:
        net: the dense network.
        batches: images to rank the channels on.
        groups: those to prune, each with members.
        importance: a word of `qprune.importances.IMPORTANCES`.
        seed: of random ranks.

    Raises:
        PlanError: if there cannot be a mask at one of the sites, or the masks of a group cannot agree.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> group = Group("1.output", members=("1",), weights=("0",), channels=4)
        >>> [site.name for site in sites(masked(net, [torch.randn(2, 3, 8, 8)], [group], "activation-l1"))]
        ['1.output']
    """
    rules = prune_rules(dict.fromkeys(groups, 0), importance, AT_ONCE)
    copied = swap(net, batches[0], prune=rules).eval()
    _rank(copied, batches, seed)
    return copied


def pruned(masked_net: nn.Module, batches: Batches, ratios: Mapping[Group, float]) -> nn.Module:
    """A copy of what `masked` gives in which shares of the channels are dropped, statistics taken anew.

    Args:
        masked_net: with the masks of these groups, and perhaps of others.
        batches: images for the statistics.
        ratios: for each group the share of its channels to drop, in [0, 1); those not named stay as they are.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> group, images = Group("1.output", members=("1",), weights=("0",), channels=4), [torch.randn(2, 3, 8, 8)]
        >>> half = pruned(masked(net, images, [group], "activation-l1"), images, {group: 0.5})
        >>> next(sites(half)).mask.sparsity
        0.5
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
    """A copy in eval mode with the weights that make a group, and its values, of ``bits`` bits; statistics taken anew.

    Weights are rounded with one range per channel, values with one range at each member, measured on the images.

    Args:
        net: the dense network.
        batches: images for ranges and statistics.
        group: which.
        bits: 2 to 8.

    Raises:
        PlanError: if there cannot be a quantizer at one of its sites.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> group = Group("1.output", members=("1",), weights=("0",), channels=4)
        >>> [site.name for site in sites(quantized(net, [torch.randn(2, 3, 8, 8)], group, bits=4))]
        ['0.weight', '1.output']
    """
    copied = swap(net, batches[0], quantize=quantize_rules({group: bits}, starts=(0, 0))).eval()
    return calibrate(copied, batches, norms=True)


def fitted(net: nn.Module, example: Tensor, able: Sequence[Group], groups: Sequence[Group]) -> nn.Module:
    """A copy in eval mode with the masks of some groups and the quantizers of all, nothing chosen or measured.

    Args:
        net: the dense network.
        example: images; only their shape matters.
        able: the groups that can lose channels.
        groups: all of them.
    """
    prune = prune_rules({group: 0 for group in able if group.members}, "activation-l1", AT_ONCE)
    return swap(net, example, prune=prune, quantize=quantize_rules(dict.fromkeys(groups, 8), starts=(0, 0))).eval()


def problems_of(net: nn.Module, example: Tensor, groups: Sequence[Group]) -> dict[Group, str]:
    """The groups that have members and cannot be masked, with the reason.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> group = Group("1.output", members=("1",), weights=("0",), channels=4)
        >>> problems_of(net, torch.zeros(1, 3, 8, 8), [group])
        {}
    """
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


def _leading(net: nn.Module) -> list[tuple[Site, ChannelMask]]:
    """The masks that choose."""
    pairs = [(site, site.mask) for site in sites(net) if site.mask is not None]
    return [(site, mask) for site, mask in pairs if not mask.ranking.follows]


@torch.no_grad()
def _rank(net: nn.Module, batches: Batches, seed: int) -> None:
    leading = _leading(net)
    measured = [mask for _, mask in leading if isinstance(mask.ranking, Measured)]
    for mask in measured:
        mask.training = mask.measuring = True  # nothing else of the network is in training
    for batch in batches if measured else ():
        net(batch)
        commit_masks(measured)
    for mask in measured:
        mask.training = mask.measuring = False
    for site, mask in leading:
        if isinstance(mask.ranking, Scored):
            mask.score.copy_(mask.ranking.score(site, seed))
