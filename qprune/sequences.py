"""Which sites are pruned one after the other, at which place each is, and what that makes of its schedule."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
from attrs import field, frozen
from torch import nn

from qprune.flow import Flow
from qprune.layers import Site, sites
from qprune.schedules import Layerwise, PruneSchedule, to_steps


@frozen
class Sequences:
    """The schedules of all masks of a network, each as it holds for its site."""

    # by the name of the site; layerwise ones at their place, those with a finish spread up to it. One that cannot be is
    # missing
    schedules: dict[str, PruneSchedule] = field(factory=dict)
    mistakes: list[str] = field(factory=list)  # why not, as sentences
    notes: list[str] = field(factory=list)  # for each finish, which moments it comes to


def sequences(
    net: nn.Module, flow: Flow | None, steps_per_epoch: int | None = None, steps: int | None = None
) -> Sequences:
    """Give every site its place, and every schedule with a finish its moments.

    Layerwise masks whose steps are equal, or that have one finish, are one sequence, whatever their sparsity. Sites
    that share a mask have one place together, where the first of them is.

    Args:
        net: a network with compressors in place.
        flow: its traced picture; needed for layerwise order by data flow.
        steps_per_epoch: optimizer steps of one epoch, needed for durations in epochs.
        steps: length of training, needed where a finish is a share of it.

    Example:
        >>> masked = [PrunedConv2d(3, 3, 1, schedule=Layerwise(0.5, finish="50%", order="reversed")) for _ in range(2)]
        >>> sequences(nn.Sequential(*masked), None, steps=40).schedules["0.input"]
        Layerwise(sparsity=0.5, start=10, interval=9, refresh=1, order='reversed')
    """
    together: dict[Any, list[Site]] = {}
    for site in sites(net):
        if site.mask is not None and site.mask.schedule is not None:
            together.setdefault(_alike(site.mask.schedule, steps_per_epoch, steps), []).append(site)
    found = Sequences()
    if flow is None and any(_by_flow(schedule) and len(members) > 1 for schedule, members in together.items()):
        found.mistakes.append(_NEEDS_FLOW)
    for schedule, members in together.items():
        if isinstance(schedule, Layerwise):
            members = _in_order(members, schedule.order, flow)
        _resolve(found, members, steps_per_epoch, steps)
    return found


_NEEDS_FLOW = (
    "Layerwise order by data flow needs the network to run once: pass example=, an input of it "
    '(only its shape matters), or use Layerwise(order="registration").'
)


def _by_flow(schedule: PruneSchedule) -> bool:
    return isinstance(schedule, Layerwise) and schedule.order == "flow"


def _alike(schedule: Any, steps_per_epoch: int | None, steps: int | None) -> PruneSchedule:
    """What is equal for schedules whose steps are: "1ep", "1.0ep" and 10 are one start where an epoch has 10 steps."""
    with suppress(ValueError):  # which is told with the sites
        if schedule.finish is not None:
            schedule = attrs.evolve(schedule, finish=to_steps(schedule.finish, steps_per_epoch, steps))
        else:
            schedule = schedule.slot(0, steps_per_epoch)
    alike: PruneSchedule = attrs.evolve(schedule, sparsity=0.0) if hasattr(schedule, "sparsity") else schedule
    return alike


def _resolve(found: Sequences, members: Sequence[Site], steps_per_epoch: int | None, steps: int | None) -> None:
    places = _places(members)
    number = 1 + max(places.values())
    first = _schedule(members[0])
    try:
        spread = first.spread(number, steps_per_epoch, steps)
    except ValueError as error:
        found.mistakes.append(f"{_told(members)}: {error}.")
        return
    if first.finish is not None:
        found.notes.append(_note(first, spread, _told(members), to_steps(first.finish, steps_per_epoch, steps)))
    for site in members:
        schedule = _schedule(site).spread(number, steps_per_epoch, steps)
        try:
            found.schedules[site.name] = schedule.slot(places[site.name], steps_per_epoch)
        except ValueError as error:
            found.mistakes.append(f"{site.name}: {error}.")


def _schedule(site: Site) -> PruneSchedule:
    assert site.mask is not None
    assert site.mask.schedule is not None
    return site.mask.schedule


def _places(members: Sequence[Site]) -> dict[str, int]:
    groups = [(site.mask and site.mask.coupled) or (site.name,) for site in members]
    order = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    return {site.name: order[group] for site, group in zip(members, groups, strict=True)}


def _told(members: Sequence[Site]) -> str:
    return members[0].name + (f" and {len(members) - 1} more" if len(members) > 1 else "")


def _note(schedule: PruneSchedule, spread: PruneSchedule, told: str, end: int) -> str:
    moments = ", ".join(f"{name} = {getattr(spread, name)}" for name in schedule.moments)
    finish = f'"{schedule.finish}"' if isinstance(schedule.finish, str) else schedule.finish
    return f"finish = {finish} is step {end}: {moments} ({told})"


def _in_order(members: list[Site], order: str, flow: Flow | None) -> list[Site]:
    if order == "reversed":
        return members[::-1]
    if order == "registration" or flow is None:
        return members
    sides = ("input", "weight", "output")
    return sorted(members, key=lambda site: (flow.position(site.path), sides.index(site.side)))
