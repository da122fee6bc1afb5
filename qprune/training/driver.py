"""`ScheduleDriver`: asks the schedules and tells the compressors, between steps and nowhere else."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from qprune.exact import bias_grids, settle_biases
from qprune.flow import trace
from qprune.layers import ChannelMask, Site, follow_sources, learned_parameters, sites
from qprune.network_plan import make_plan
from qprune.training import ranks
from qprune.training.agenda import Agenda
from qprune.training.averaging import check_average
from qprune.training.choosing import Choice, coupled_groups, look
from qprune.training.driving_checks import (
    check_biases,
    check_coupled,
    check_inherited,
    check_newest,
    check_optimizer,
    check_same_plan,
)
from qprune.training.dropped import Companions, frozen_masks, settled_masks, zero_dropped
from qprune.training.measurements import Measurements, Part
from qprune.training.standstill import Standstill

Event = dict[str, Any]
_numbers = count(1)


class ScheduleDriver:
    """Carries out the schedules of all masks and quantizers of a network.

    Construct it before the first step, and call `step` after every ``optimizer.step()``: it commits what the forwards
    of the step measured, then refreshes, freezes and activates what is due. Step s acts before forward s, counted from
    0; step 0 is applied on construction. Forwards are never counted, so several of them may belong to one step.

    With torch.distributed, what the processes measured is merged before anything is chosen, so that all hold the same
    masks and ranges; whenever a mask freezes or a quantizer starts that is checked, by a checksum.

    Args:
        net: a network with compressors in place, hand-built or from `qprune.swap` or `qprune.build`.
        example: an input of it (only its shape matters); needed for `Layerwise` in data-flow order.
        steps_per_epoch: optimizer steps of one epoch; needed for durations in epochs.
        optimizer: if given, the moments of dropped entries are zeroed at freeze; if not, the entries are zeroed again
            after every step, because old moments still move them.
        steps: length of training, if known: schedules past it are refused. Needed where a ``finish`` is a share of it.
        seed: seeds the importance ``"random"``.
        average: a copy of ``net`` that holds a moving average of its weights; dropped entries are zeroed there too.
        measure_all: while one site measures, let all of them, and forget what is not due: compiled code then knows two
            states, not one for each set of sites.

    Attributes:
        steps_done: how many steps were taken.
        begun: the events of step 0.
        plan: the `Plan` that it carries out.

    Raises:
        PlanError: if the schedules cannot work (see `qprune.plan`), an inherited mask was never chosen, or the
            optimizer is another network's.

    Example:
        >>> net = nn.Sequential(PrunedConv2d(3, 8, 3, at="output", schedule=OneShot(sparsity=0.5, at=1)))
        >>> driver = ScheduleDriver(net)
        >>> _ = net(torch.ones(2, 3, 5, 7))
        >>> driver.step()
        [{'step': 1, 'site': '0.output', 'sparsity': 0.5, 'frozen': True}]
    """

    def __init__(
        self,
        net: nn.Module,
        example: Any = None,
        steps_per_epoch: int | None = None,
        *,
        optimizer: Optimizer | None = None,
        steps: int | None = None,
        seed: int = 0,
        average: nn.Module | None = None,
        measure_all: bool = False,
    ) -> None:
        flow = None if example is None else trace(net, example)
        self._bias_grids = [] if flow is None else list(bias_grids(flow))
        check_biases(net, flow)
        self._learns = bool(learned_parameters(net))
        if average is not None:
            check_average(net)
        self.plan = make_plan(net, flow, steps_per_epoch=steps_per_epoch, steps=steps)
        self.net, self.optimizer, self.seed, self.measure_all = net, optimizer, seed, measure_all
        self._companions = Companions(net, optimizer, average)
        self.sites = list(sites(net))
        self.agenda, self.steps_done = Agenda(self.plan), 0
        self._measurements = Measurements()
        self._number = next(_numbers)
        self._take_over()
        self.begun = self._start()
        self._standstill = Standstill(net)

    def _start(self) -> list[Event]:
        check_optimizer(self.optimizer, self.net)
        check_inherited(self.sites, self.plan)
        check_coupled(self._groups.values())
        events = self._apply()
        self.zero_dropped()
        return events

    def _take_over(self) -> None:
        self._groups = coupled_groups(self.sites)
        self._driven = {part: site.name for site in self.sites for _, part in _parts(site)}
        for part in self._driven:
            part.driver = self._number  # a plain number, because networks are copied and pickled

    @property
    def finished(self) -> bool:
        """Whether every mask is frozen and every quantizer active."""
        return self.steps_done >= self.plan.finished_by

    def step(self) -> list[Event]:
        """Commit what the step measured and carry out what the next one begins with.

        To be called once after each ``optimizer.step()``, also where a GradScaler skipped that. Where nothing was
        trained since the last call, a warning says so, once.

        Returns:
            one dict per event: ``{"step", "site", "sparsity", "frozen"}`` or ``{"step", "site", "bits"}``.

        Raises:
            TrainingError: if scores hold NaN; the site is named. If a newer driver was made for the same network.
            PlanError: if a site is due that no forward ever reached.
        """
        check_newest(self._driven, self._number)
        self._standstill.warn(self.steps_done)
        self._measurements.commit()
        self.steps_done += 1
        events = self._apply() if self.agenda.has(self.steps_done) else []
        settled = any(event.get("frozen", True) for event in events)  # a mask frozen, or a quantizer started
        if settled or self.optimizer is None:
            self.zero_dropped()
        if self._learns:
            settle_biases(self._bias_grids)  # which follow the learned steps
        if settled:
            ranks.check_alike(self._choices, f"The masks and ranges after step {self.steps_done}")
        self._standstill.note()
        return events

    def _apply(self) -> list[Event]:
        now = self.steps_done
        choices = [
            Choice(group, sparsity, self.seed)
            for site in self.sites
            if (sparsity := self.agenda.sparsity(site, now)) is not None and site is (group := self._group(site))[0]
        ]  # the others of a group are due at the same steps
        starting = [site for site in self.sites if self.agenda.starts(site, now)]
        look(self.sites, choices, starting, step=now)
        for choice in choices:
            choice.make()
        for site in starting:
            self._activate(site)
        settle_biases(self._bias_grids)
        # a source that is none of them was frozen, and cut out, and had been followed
        follow_sources({site.name: site.mask for site in self.sites if site.mask is not None})
        self._set_modes()
        return [event for site in self.sites for event in self.agenda.events(site, now)]

    def _group(self, site: Site) -> list[Site]:
        return [site] if site.mask is None else self._groups.get(site.mask.coupled, [site])

    def _activate(self, site: Site) -> None:
        quant = site.quant
        assert quant is not None
        quant.active.fill_(True)
        quant.told_active = True
        self._companions.restart_averages(quant)  # of learned steps, which were of other ranges

    def _set_modes(self) -> None:
        parts = [(site, kind, part) for site in self.sites for kind, part in _parts(site)]
        due = [self.agenda.measures(site, kind, self.steps_done) for site, kind, _ in parts]
        self._measurements = Measurements(part for (*_, part), now in zip(parts, due, strict=True) if now)
        for (*_, part), now in zip(parts, due, strict=True):
            part.measuring = now or (self.measure_all and any(due))
            if self.measure_all:
                part.forget()  # what it measured because others did

    def _choices(self) -> list[Tensor]:
        masks = [site.mask.keep for site in self.sites if site.mask is not None]
        quants = [site.quant for site in self.sites if site.quant is not None]
        return masks + [tensor for quant in quants for tensor in (quant.scale, quant.zero_point)]

    def zero_dropped(self) -> None:
        """Zero the entries that belong to dropped channels of frozen masks, their moments and their averages."""
        zero_dropped(self.sites, frozen_masks(self.sites, self.plan, self.steps_done), self._companions)

    @property
    def all_frozen(self) -> bool:
        """Whether every mask is frozen."""
        return self.agenda.all_frozen(self.steps_done)

    def settled_masks(self) -> set[ChannelMask]:
        """The masks that never change again, and that no mask which may still change follows."""
        return settled_masks(self.sites, frozen_masks(self.sites, self.plan, self.steps_done))

    def refit(self) -> None:
        """Look anew at what masks and quantizers the network has, after masks were cut out of it."""
        self.sites = list(sites(self.net))
        self._take_over()
        self._standstill = Standstill(self.net, told=self._standstill.told)
        look(self.sites)
        self._set_modes()

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on: the clock, and the plan that it belongs to. Masks and ranges are the network's."""
        return {"steps_done": self.steps_done, "plan": self.agenda.as_text()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``.

        Make the network, the optimizer and the driver as at the start, then load all three, in this order: a driver
        made on a loaded network would apply step 0 to it once more.

        Raises:
            CheckpointError: if ``state`` is of another plan; the first site that differs is named.
        """
        own = self.agenda.as_text()
        check_same_plan(state.get("plan", own), own)  # some files know no plan
        self.steps_done = int(state["steps_done"])
        look(self.sites)
        self._set_modes()


def _parts(site: Site) -> Iterator[tuple[str, Part]]:
    if site.mask is not None:
        yield "mask", site.mask
    if site.quant is not None:
        yield "quant", site.quant
