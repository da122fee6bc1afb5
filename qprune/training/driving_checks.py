"""Refuses networks, masks, optimizers and checkpoints that a `ScheduleDriver` cannot drive."""

from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from qprune.errors import CheckpointError, PlanError, TrainingError
from qprune.flow import Flow
from qprune.host import on_host
from qprune.layers import BiasQuant, Site
from qprune.network_plan import Plan
from qprune.training.measurements import Part


def check_biases(net: nn.Module, flow: Flow | None) -> None:
    """Refuse a network in exact numerics of which no example was given."""
    if flow is None and any(isinstance(module, BiasQuant) for module in net.modules()):
        raise PlanError(
            "A network in exact numerics has biases on the grids of what its layers read: pass example=, an input "
            "of it, from which these are known."
        )


def check_optimizer(optimizer: Optimizer | None, net: nn.Module) -> None:
    """Refuse an optimizer of another network."""
    groups = optimizer.param_groups if optimizer is not None else []
    held = {id(parameter) for group in groups for parameter in group["params"]}
    if held and held.isdisjoint(map(id, net.parameters())):
        raise PlanError("The optimizer holds no parameter of the network: make it from the network that swap returned.")


def check_inherited(sites: Iterable[Site], plan: Plan) -> None:
    """Refuse inherited masks that were never chosen."""
    inherited = {entry.site for entry in plan.sites if entry.inherited}
    masked = [(site, site.mask) for site in sites if site.mask is not None and site.name in inherited]
    # scores tell a mask that was chosen, and has too few channels to drop one, from one that never was
    fresh = on_host([mask.keep.all() & ~mask.score.any() for _, mask in masked])
    for (site, _), never_chosen in zip(masked, fresh, strict=True):
        if never_chosen:
            raise PlanError(
                f"{site.name} inherits its mask, but the mask drops nothing: load a pruned network first "
                "(init in a spec, load_state_dict in a loop), or give it another schedule."
            )


def check_coupled(groups: Iterable[Sequence[Site]]) -> None:
    """Refuse coupled masks that differ."""
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    same = on_host([(first.mask.keep == other.mask.keep).all() for first, other in pairs])  # type: ignore[union-attr]
    for (first, site), alike in zip(pairs, same, strict=True):
        if not alike:
            raise PlanError(
                f"{first.name} and {site.name} are coupled and inherit masks that differ: leave couple out of "
                "their rule, or start from a network whose masks were coupled."
            )


def check_newest(driven: Mapping[Part, str], number: int) -> None:
    """Refuse a step of a driver, known by its number, whose masks and quantizers a newer one drives."""
    other = next((site for part, site in driven.items() if part.driver != number), None)
    if other is not None:
        raise TrainingError(
            f"{other} has a newer ScheduleDriver than the one whose step was called: each of them would move its "
            "schedule. Make one driver for the network, and call its step once after every optimizer.step()."
        )


def check_same_plan(theirs: dict[str, str], own: dict[str, str]) -> None:
    """Refuse a checkpoint of another plan; both by site, the schedules as text."""
    different = [name for name in theirs | own if theirs.get(name) != own.get(name)]
    if different:
        raise CheckpointError(
            f"The checkpoint is of another plan: {different[0]} has another schedule there, first of {len(different)}. "
            "Go on with the schedules and the steps per epoch that it was written with, or begin anew."
        )
