"""Dropped channels for good: which masks are final, and zeros in all that belongs to the channels they drop."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qprune.layers import ChannelMask, Site
from qprune.network_plan import Plan


class Companions:
    """The tensors that belong to each parameter of a network, entry by entry: an optimizer's moments, and averages."""

    def __init__(self, net: nn.Module, optimizer: Optimizer | None, average: nn.Module | None) -> None:
        self._optimizer = optimizer
        averages = {} if average is None else dict(average.named_parameters())
        self._averages = {parameter: averages[name] for name, parameter in net.named_parameters() if averages}

    def averages(self, parameter: nn.Parameter) -> list[Tensor]:
        """The parameter of the same name in the average, if there is one."""
        return [self._averages[parameter]] if parameter in self._averages else []

    @torch.no_grad()
    def restart_averages(self, module: nn.Module) -> None:
        """Let the averages of a module's parameters begin anew, at what these are now."""
        for parameter in module.parameters():
            for average in self.averages(parameter):
                average.copy_(parameter)

    def moments(self, parameter: nn.Parameter) -> list[Tensor]:
        """The optimizer's moments of the parameter's shape."""
        state = self._optimizer.state.get(parameter, {}) if self._optimizer is not None else {}
        return [value for value in state.values() if isinstance(value, Tensor) and value.shape == parameter.shape]


def frozen_masks(sites: Sequence[Site], plan: Plan, step: int) -> set[ChannelMask]:
    """The masks that are frozen at a step, those that follow frozen ones among them."""
    plans = {entry.site: entry for entry in plan.sites if entry.kind == "mask"}
    frozen = {name for name, entry in plans.items() if entry.frozen_at(step)}
    return {
        site.mask
        for site in sites
        if site.mask is not None
        and (site.name in frozen or (site.mask.tied and all(source in frozen for source, _ in site.mask.tied)))
    }


def settled_masks(sites: Sequence[Site], frozen: Collection[ChannelMask]) -> set[ChannelMask]:
    """Those of the frozen masks that no mask follows which may still change."""
    masks = {site.name: site.mask for site in sites if site.mask is not None}
    awaited = {source for mask in masks.values() if mask not in frozen for source, _ in mask.tied}
    return {mask for name, mask in masks.items() if mask in frozen and name not in awaited}


@torch.no_grad()
def zero_dropped(sites: Sequence[Site], frozen: Collection[ChannelMask], companions: Companions) -> None:
    """Zero the entries of dropped channels of frozen masks, in parameters and all that belongs to them."""
    for host in {id(site.host): site.host for site in sites if site.mask in frozen}.values():
        for parameter, keep in host.kept_entries(frozen):
            for tensor in (parameter, *companions.moments(parameter), *companions.averages(parameter)):
                tensor.copy_(torch.where(keep, tensor, 0))
