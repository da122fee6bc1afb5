"""`plan_spec`: the plan of a spec, of which nothing is trained."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from qprune.assemble import assemble
from qprune.costs import carry_out, forecast
from qprune.coupling import choose_apart
from qprune.data import EpochSampler, weights_of
from qprune.exact import make_exact
from qprune.flow import Shape, trace
from qprune.layers import sites
from qprune.network_plan import Plan, make_plan
from qprune.schedules import to_steps
from qprune.shrinking import restore_masks
from qprune.spec import Spec
from qprune.spec.values import shown
from qprune.training.averaging import check_average
from qprune.training.batches import check_output, part_size
from qprune.training.inheriting import inherit
from qprune.training.optimizers import check_lr_schedule
from qprune.training.provided import NOTHING, Provided
from qprune.training.teaching import check_layers
from qprune.training.update import check_precision
from qprune.zoo import is_of_library

# the keys of [data] that a network has defaults for
PRESET = ("size", "resize", "interpolation", "augment", "mean", "std")
Keeps = Mapping[str, Tensor]  # per site which channels its mask keeps


@frozen(eq=False)
class Forecast:
    """A plan, and the network before and after it is carried out."""

    plan: Plan  # what training would do; what that costs is not counted yet
    now: nn.Module  # the network at step 0
    later: nn.Module  # with as many channels as planned, of which the first are taken, and with active quantizers
    apart: nn.Module | None  # the same with masks that do not agree; None where none need to
    shape: Shape  # of one image

    @property
    def keeps(self) -> Keeps:
        """Which channels the masks of a run will keep, per site, when the plan is carried out."""
        return _keeps_of(self.now) | _keeps_of(self.later)

    def with_cost(self) -> Plan:
        """The plan with what its network costs; it runs the networks on the meta device."""
        return evolve(self.plan, cost=forecast(self.now, self.later, self.shape, self.apart))


def plan_spec(
    spec: Spec,
    per_epoch: int | None = None,
    *,
    provided: Provided = NOTHING,
    init: Mapping[str, Any] | None = None,
    keeps: Keeps | None = None,
) -> Forecast:
    """The plan of a spec after ``init`` (a ``model.pt``) or the masks ``keeps``."""
    info = provided.describe(spec)
    task = provided.make_task(spec, info)
    example = torch.zeros(2, *info.shape, device="meta")
    with torch.random.fork_rng(devices=[]):
        net = assemble(spec, len(info.classes), info.shape, provided.model)
        if init is not None:
            inherit(copy.deepcopy(net), dict(init), str(spec.init))
            keeps = _keeps_in(net, init)
        _take(net, keeps or {})
        whole = net
        if spec.arithmetic.remakes:
            whole = copy.deepcopy(net)
            make_exact(net, example)
    check_layers(spec, net)
    counted = per_epoch is None and "train" in info.sizes  # a loader of the user's own is asked when it trains
    per_epoch = per_epoch or provided.steps_per_epoch(spec, info)
    steps = to_steps(spec.train.length, per_epoch)
    check_lr_schedule(spec.train.lr_schedule, steps, per_epoch)
    check_precision(net, spec.train.precision)
    if spec.train.ema:
        check_average(net)
    flow = trace(net, example)
    check_output(task, flow, info.shape, info.name or "your own")
    if counted:
        sampler = EpochSampler(info.sizes["train"], spec.train.batch)
        part_size(flow, sampler.fewest, sampler.other_batch(least=2))
    plan = make_plan(net, flow, steps_per_epoch=per_epoch, steps=steps)
    plan = evolve(plan, notes=(*plan.notes, *_about_images(spec, provided), *_about_weights(spec)))
    free = {entry.site for entry in plan.sites if entry.kind == "mask" and not entry.inherited}
    apart = carry_out(net, plan, agreeing=False) if choose_apart(net, flow, free) else None
    return Forecast(plan, whole, carry_out(net, plan), apart, info.shape)


def _about_images(spec: Spec, provided: Provided) -> Iterator[str]:
    """What images are brought to, of which much may be the network's default."""
    if provided.data is None and spec.model.arch is not None and is_of_library(spec.model.arch):
        table = spec.to_dict()["data"]
        told = [f"{name} = {shown(table[name])}" for name in PRESET if name in table]
        if told:
            yield f"images: {', '.join(told)}"


def _about_weights(spec: Spec) -> Iterator[str]:
    """Where the weights are, which a plan does not need."""
    if spec.model.start is not None and spec.init is None:
        found = weights_of(spec)
        file = found.here()
        yield f"starts from {found.title}, {f'in {file}' if file else 'which are not on this machine (fit --download)'}"


def _keeps_in(net: nn.Module, content: Mapping[str, Any]) -> Keeps:
    """The masks of a trained model, in the size that they had before anything was cut."""
    whole = copy.deepcopy(net)
    masks = {site.name: site.mask for site in sites(whole) if site.mask is not None}
    for name, mask in masks.items():
        path, _, side = name.rpartition(".")
        keep = content["state"].get(f"{path}.{side}_mask.keep".lstrip("."))
        if keep is not None and keep.shape == mask.keep.shape:
            mask.keep.copy_(keep)
    restore_masks(whole, content["cuts"])
    return _keeps_of(whole)


def _keeps_of(net: nn.Module) -> dict[str, Tensor]:
    return {site.name: site.mask.keep.clone() for site in sites(net) if site.mask is not None}


def _take(net: nn.Module, keeps: Keeps) -> None:
    for site in sites(net):
        if site.mask is not None and site.name in keeps and keeps[site.name].shape == site.mask.keep.shape:
            site.mask.keep.copy_(keeps[site.name])
