"""Pruning schedules: how sparse a mask is at which step. Frozen values, compared and printed like numbers."""

from typing import ClassVar, Self, TypeAlias

from attrs import evolve, field, frozen
from attrs.validators import optional

from qprune.per_path import PerPath, one_number, per_path
from qprune.schedules.checks import is_duration, is_finish, is_order, is_positive, is_sparsity, is_times
from qprune.schedules.durations import Duration, to_steps
from qprune.schedules.pruning_base import PruningBase
from qprune.schedules.timeline import Timeline


@frozen(repr=False)
class OneShot(PruningBase):
    """Prune everything at once: measure ``measure`` steps, then drop ``sparsity`` of the channels at step ``at``.

    Args:
        sparsity: share of channels dropped, in [0, 1); in a rule also a table of them, see `qprune.per_path`.
        at: the step at which the mask is chosen and frozen (int, ``"800it"`` or ``"2ep"``).
        measure: how long activations are measured before it.
        finish: in place of ``at``: the step as a share of the run, ``"35%"``, or a duration.

    Raises:
        ValueError: for a sparsity outside [0, 1), a malformed duration, or one of ``at`` and ``finish`` too many or
            too few.

    Example:
        >>> OneShot(sparsity=0.75, at=500, measure=50).timeline().measure
        (450, 500)
    """

    sparsity: float | PerPath = field(converter=per_path, validator=is_sparsity)
    at: Duration | None = field(default=None, validator=optional(is_duration))
    measure: Duration = field(default=1, validator=is_positive)
    finish: Duration | None = field(default=None, kw_only=True, validator=optional(is_finish))

    moments: ClassVar[tuple[str, ...]] = ("at",)

    def timeline(self, steps_per_epoch: int | None = None, steps: int | None = None) -> Timeline:
        """The schedule in steps."""
        at = _in_steps(self.spread(1, steps_per_epoch, steps).at, steps_per_epoch)
        first = max(0, at - to_steps(self.measure, steps_per_epoch))
        return Timeline(measure=(first, at), refreshes=((at, one_number(self.sparsity, "sparsity")),), end=at)

    def _spread(self, end: int, sites: int) -> dict[str, int]:
        return {"at": end}


@frozen(repr=False)
class Stepwise(PruningBase):
    """Prune in ``times`` rising steps along the cubic of Zhu and Gupta (2017, arXiv:1710.01878, equation 1).

    The i-th of n refreshes, at ``start + i * every``, drops ``sparsity * (1 - (1 - (i + 1) / n)**3)``. Activations are
    measured from one ``every`` before ``start`` until the last refresh.

    Args:
        sparsity: final share of channels dropped, in [0, 1); in a rule also a table of them, see `qprune.per_path`.
        start: step of the first refresh.
        every: steps between refreshes.
        times: number of refreshes.
        finish: in place of ``start`` and ``every``: the step of the last refresh, as a share of the run, ``"35%"``, or
            a duration; the refreshes are spread evenly up to it.

    Raises:
        ValueError: for a sparsity outside [0, 1), ``times`` below 1, a malformed duration, or a finish beside
            ``start`` or ``every``.

    Example:
        >>> Stepwise(sparsity=0.75, start=4, every=2, times=3).timeline().refreshes[-1]
        (8, 0.75)
    """

    sparsity: float | PerPath = field(converter=per_path, validator=is_sparsity)
    start: Duration | None = field(default=None, validator=optional(is_duration))
    every: Duration | None = field(default=None, validator=optional(is_positive))
    times: int = field(default=5, validator=is_times)
    finish: Duration | None = field(default=None, kw_only=True, validator=optional(is_finish))

    moments: ClassVar[tuple[str, ...]] = ("start", "every")

    def timeline(self, steps_per_epoch: int | None = None, steps: int | None = None) -> Timeline:
        """The schedule in steps."""
        spread = self.spread(1, steps_per_epoch, steps)
        start, every = _in_steps(spread.start, steps_per_epoch), _in_steps(spread.every, steps_per_epoch)
        refreshes = tuple((start + i * every, self._cubic(i + 1)) for i in range(self.times))
        end = refreshes[-1][0]
        return Timeline(measure=(max(0, start - every), end), refreshes=refreshes, end=end)

    def _spread(self, end: int, sites: int) -> dict[str, int]:
        every = end // self.times
        if every < 1:
            raise ValueError(self._too_many(end, f"{self.times} refreshes", self.times))
        return {"start": end - (self.times - 1) * every, "every": every}

    def _cubic(self, done: int) -> float:
        final: float = one_number(self.sparsity, "sparsity")
        return final * (1 - (1 - done / self.times) ** 3)


@frozen(repr=False)
class Layerwise(PruningBase):
    """Prune greedily, one site after the other in the order in which data reaches them (Zhang, Colbert, Das, 2022).

    Site l of the sequence measures from ``start + l * (interval + 1)`` for ``interval`` steps, in a network whose
    earlier sites are pruned already; its mask is chosen anew every ``refresh`` steps and the last choice freezes it.

    Args:
        sparsity: share of channels dropped, in [0, 1); in a rule also a table of them, see `qprune.per_path`.
        start: step at which the first site begins to measure.
        interval: steps that each site measures.
        refresh: steps between choices of the mask; at most ``interval``.
        order: ``"flow"`` (data flow), ``"registration"`` (order of ``net.modules()``) or ``"reversed"`` (that,
            backwards).
        finish: in place of ``start``, ``interval`` and ``refresh``: when the last site is over, as a share of the run,
            ``"35%"``, or a duration. From step 0 on every site gets an equal part of that time, and chooses its mask
            anew in each fifth of it, see `spread`.

    Raises:
        ValueError: for a sparsity outside [0, 1), an unknown order, a malformed duration, or a finish beside ``start``,
            ``interval`` or ``refresh``.

    Example:
        >>> schedule = Layerwise(sparsity=0.5, start=10, interval=5, refresh=2)
        >>> schedule.slot(1).timeline().refreshes
        ((18, 0.5), (20, 0.5))
        >>> Layerwise(sparsity=0.5, finish="35%").spread(sites=7, steps=1000)
        Layerwise(sparsity=0.5, start=0, interval=49, refresh=9, order='flow')
    """

    sparsity: float | PerPath = field(converter=per_path, validator=is_sparsity)
    start: Duration | None = field(default=None, validator=optional(is_duration))
    interval: Duration | None = field(default=None, validator=optional(is_positive))
    refresh: Duration | None = field(default=None, validator=optional(is_positive))
    order: str = field(default="flow", validator=is_order)
    finish: Duration | None = field(default=None, kw_only=True, validator=optional(is_finish))

    moments: ClassVar[tuple[str, ...]] = ("start", "interval", "refresh")

    def slot(self, index: int, steps_per_epoch: int | None = None) -> Self:
        """The same schedule for site ``index`` of the sequence, with durations in steps.

        Raises:
            ValueError: if ``refresh`` is longer than ``interval``: the mask would never be chosen. If it has a finish
                in place of them, see `spread`.
        """
        if self.finish is not None:
            raise ValueError(
                f"finish = {self.finish!r} is shared by all sites of a sequence: call spread(sites, ...), which says "
                "how many they are, and then slot"
            )
        interval, refresh = _in_steps(self.interval, steps_per_epoch), _in_steps(self.refresh, steps_per_epoch)
        if refresh > interval:
            raise ValueError(f"refresh ({refresh} steps) must not be longer than interval ({interval} steps)")
        start = _in_steps(self.start, steps_per_epoch) + index * (interval + 1)
        return evolve(self, start=start, interval=interval, refresh=refresh)

    def timeline(self, steps_per_epoch: int | None = None, steps: int | None = None) -> Timeline:
        """The schedule in steps, for the first site; ``slot(l)`` gives the later ones. A finish is for one site."""
        first = self.spread(1, steps_per_epoch, steps).slot(0, steps_per_epoch)
        start, interval, refresh = map(_in_steps, (first.start, first.interval, first.refresh))
        times = [start + t for t in range(refresh, interval + 1, refresh)]
        sparsity = one_number(self.sparsity, "sparsity")
        refreshes = tuple((step, sparsity) for step in times)
        return Timeline(measure=(start, times[-1]), refreshes=refreshes, end=start + interval + 1)

    def _spread(self, end: int, sites: int) -> dict[str, int]:
        interval = end // sites - 1  # a site goes on to the next in a step of its own
        if interval < 1:
            raise ValueError(self._too_many(end, f"{sites} sites one after the other", 2 * sites))
        return {"start": 0, "interval": interval, "refresh": max(1, interval // 5)}


@frozen(repr=False)
class Inherited(PruningBase):
    """Keep the frozen mask that came with ``init`` or a loaded checkpoint; nothing is measured or chosen.

    Example:
        >>> Inherited().timeline().refreshes
        ()
    """

    def timeline(self, steps_per_epoch: int | None = None, steps: int | None = None) -> Timeline:
        """No events."""
        return Timeline()


def _in_steps(duration: Duration | None, steps_per_epoch: int | None = None) -> int:
    assert duration is not None  # a schedule without a finish has all of its moments
    return to_steps(duration, steps_per_epoch)


PruneSchedule: TypeAlias = OneShot | Stepwise | Layerwise | Inherited
