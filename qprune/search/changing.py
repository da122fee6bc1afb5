"""One change at a time: a copy of a network with one group of channels pruned, or of fewer bits."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qprune.assemble import swap
from qprune.calibration import average_statistics, calibrate
from qprune.functional import joint_score
from qprune.importances import Measured, Scored
from qprune.layers import ChannelMask, Site, commit_masks, follow_sources, sites
from qprune.search.groups import Group

Batches = Sequence[Tensor]


def renormalized(net: nn.Module, batches: Batches) -> nn.Module:
    """A copy in eval mode whose normalizations have the statistics of these images.

    Example:
        >>> renormalized(nn.BatchNorm2d(1), [torch.full((2, 1, 1, 1), 3.0)]).running_mean
        tensor([3.])
    """
    copied = copy.deepcopy(net).eval()
    average_statistics(copied, batches)
    return copied


def masked(net: nn.Module, batches: Batches, group: Group, importance: str, seed: int = 0) -> nn.Module:
    """A copy in eval mode with the masks of one group, their channels ranked and all of them kept.

    Args:
        net: the dense network.
        batches: images to rank the channels on.
        group: one with members.
        importance: a word of `qprune.importances.IMPORTANCES`.
        seed: of random ranks.

    Raises:
        PlanError: if there cannot be a mask at one of its sites, or the masks of the group cannot agree.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> group = Group("1.output", members=("1",), weights=("0",), channels=4)
        >>> [site.name for site in sites(masked(net, [torch.randn(2, 3, 8, 8)], group, "activation-l1"))]
        ['1.output']
    """
    rule = {
        "sites": [{"paths": list(group.members), "at": "output"}],
        "sparsity": 0.0,
        "importance": importance,
        "couple": group.coupled,
        "schedule": {"kind": "one-shot", "at": 0},
    }
    copied = swap(net, batches[0], prune=[rule]).eval()
    _rank(copied, batches, seed)
    return copied


def pruned(masked_net: nn.Module, batches: Batches, ratio: float) -> nn.Module:
    """A copy of what `masked` gives in which a share of the group's channels is dropped, statistics taken anew.

    Args:
        masked_net: with the masks of one group.
        batches: images for the statistics.
        ratio: share of the channels to drop, in [0, 1).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> group, images = Group("1.output", members=("1",), weights=("0",), channels=4), [torch.randn(2, 3, 8, 8)]
        >>> half = pruned(masked(net, images, group, "activation-l1"), images, 0.5)
        >>> next(sites(half)).mask.sparsity
        0.5
    """
    copied = copy.deepcopy(masked_net)
    leading = [mask for _, mask in _leading(copied)]
    score = joint_score([mask.score for mask in leading]) if len(leading) > 1 else None
    for mask in leading:
        mask.refresh(ratio, score)
    follow_sources({site.name: site.mask for site in sites(copied) if site.mask is not None})
    average_statistics(copied, batches)
    return copied


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
    rules = []
    if group.weights:
        rules.append({"sites": [{"paths": list(group.weights), "at": "weight"}], "bits": bits, "per": "channel"})
    if group.members:
        rules.append({"sites": [{"paths": list(group.members), "at": "output"}], "bits": bits})
    copied = swap(net, batches[0], quantize=[rule | {"start": 0} for rule in rules]).eval()
    return calibrate(copied, batches, norms=True)


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
