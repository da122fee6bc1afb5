"""What a network will cost once its plan is carried out."""

import copy

import torch
from torch import nn

from qprune.flow import Shape
from qprune.layers import sites
from qprune.plan import Plan
from qprune.report.summary import summarize
from qprune.report.tables import short


@torch.no_grad()
def forecast(net: nn.Module, plan: Plan, input_size: Shape) -> dict[str, str]:
    """Parameters, MACs and packed bytes now and when every mask is frozen and every quantizer active, as text.

    Which channels will be dropped is not known yet, so the first ones are taken to stay; where tensors are summed or
    concatenated, the true figures depend on how far their masks agree. Inherited masks count as they are in ``net``.

    Args:
        net: the network at step 0; it is not changed.
        plan: its plan.
        input_size: shape of one image, ``(C, H, W)``.

    Example:
        >>> forecast(net, make_plan(net), (1, 8, 8))["parameters"]
        '83,434 -> 9,120'
    """
    later = copy.deepcopy(net)
    kept = {entry.site: entry.kept for entry in plan.sites if entry.kind == "mask" and not entry.inherited}
    found = {site.name: site for site in sites(later)}
    for site in found.values():
        if site.mask is not None and site.name in kept:
            site.mask.keep[kept[site.name] :] = False
        if site.quant is not None:
            site.quant.active.fill_(True)
    for site in found.values():
        for source, offset in site.mask.tied if site.mask is not None else ():
            keep = found[source].mask.keep  # type: ignore[union-attr]
            site.mask.keep[offset : offset + len(keep)] = keep  # type: ignore[union-attr]
    now, then = summarize(net, input_size).total, summarize(later, input_size).total
    return {
        "parameters": f"{now.parameters:,} -> {then.parameters_kept:,}",
        "MACs": f"{short(now.macs)} -> {short(then.macs_kept)}",
        "packed": f"{short(now.packed_bytes, 'B')} -> {short(then.packed_bytes, 'B')}",
    }
