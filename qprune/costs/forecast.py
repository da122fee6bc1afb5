"""Forecasts the costs of a network after its plan is carried out."""

import copy

import torch
from torch import nn

from qprune.costs.summary import summarize
from qprune.flow import Shape
from qprune.layers import follow_sources, sites
from qprune.network_plan import Plan
from qprune.tables import short

GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly, however many there are


@torch.no_grad()
def carry_out(net: nn.Module, plan: Plan, *, agreeing: bool = True) -> nn.Module:
    """A copy of a network as it will be when every mask is frozen and every quantizer active.

    Which channels will be dropped is not known yet, so the first ones are taken to stay. If masks are not taken to
    agree, those that are not coupled keep as many in a row, which begins elsewhere for each. Inherited masks are as
    they are in ``net``.

    Example:
        >>> carry_out(net, make_plan(net)).conv2.output_mask.sparsity
        0.75
    """
    later = copy.deepcopy(net)
    kept = {entry.site: entry.kept for entry in plan.sites if entry.kind == "mask" and not entry.inherited}
    found = list(sites(later))
    for number, site in enumerate(found):
        if site.mask is not None and site.name in kept:
            channels = site.mask.channels
            first = 0 if agreeing or site.mask.coupled else int(number * GOLDEN * channels)
            site.mask.keep.copy_((torch.arange(channels) - first) % channels < kept[site.name])
        if site.quant is not None:
            site.quant.active.fill_(True)
    follow_sources({site.name: site.mask for site in found if site.mask is not None})
    return later


def forecast(now: nn.Module, later: nn.Module, input_size: Shape, apart: nn.Module | None = None) -> dict[str, str]:
    """Parameters, MACs and packed bytes of a network at step 0, and as `carry_out` made it, as text.

    Args:
        now: the network at step 0.
        later: as `carry_out` made it, with masks that agree.
        input_size: that of one image, ``(C, H, W)``.
        apart: the same with masks that do not agree. Where that leaves more MACs, since channels are added of which
            each mask keeps others, the text says how many.

    Example:
        >>> forecast(net, carry_out(net, make_plan(net)), (1, 8, 8))["parameters"]
        '83,434 -> 9,120'
    """
    before, after = summarize(now, input_size).total, summarize(later, input_size).total
    macs = summarize(apart, input_size).total.macs_kept if apart is not None else 0
    if_apart = f" (about {short(macs)} if masks that meet in sums do not agree; couple = true)"
    return {
        "parameters": f"{before.parameters:,} -> {after.parameters_kept:,}",
        "MACs": f"{short(before.macs)} -> {short(after.macs_kept)}" + (if_apart if macs > after.macs_kept else ""),
        "packed": f"{short(before.packed_bytes, 'B')} -> {short(after.packed_bytes, 'B')}",
    }
