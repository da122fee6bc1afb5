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


def most(later: nn.Module, apart: nn.Module, input_size: Shape) -> str | None:
    """What a forecast leaves out if more may stay, since masks that come together in a sum need not agree.

    Args:
        later: the network as `carry_out` made it.
        apart: the same with masks that do not agree.
        input_size: that of one image, ``(C, H, W)``.

    Example:
        >>> most(carry_out(net, plan), carry_out(net, plan, agreeing=False), (1, 8, 8))
    """
    fewest, largest = (summarize(each, input_size).total.macs_kept for each in (later, apart))
    if largest <= fewest:
        return None
    return (
        f"{short(fewest)} MACs are left if masks whose channels are added keep the same ones, about {short(largest)} "
        "if each chooses for itself; couple = true makes them agree"
    )


def forecast(now: nn.Module, later: nn.Module, input_size: Shape) -> dict[str, str]:
    """Parameters, MACs and packed bytes of a network at step 0, and as `carry_out` made it, as text.

    The input size is that of one image, ``(C, H, W)``. Where tensors are summed or concatenated, the true figures
    depend on how far masks agree that are yet to be chosen.

    Example:
        >>> forecast(net, carry_out(net, make_plan(net)), (1, 8, 8))["parameters"]
        '83,434 -> 9,120'
    """
    before, after = summarize(now, input_size).total, summarize(later, input_size).total
    return {
        "parameters": f"{before.parameters:,} -> {after.parameters_kept:,}",
        "MACs": f"{short(before.macs)} -> {short(after.macs_kept)}",
        "packed": f"{short(before.packed_bytes, 'B')} -> {short(after.packed_bytes, 'B')}",
    }
