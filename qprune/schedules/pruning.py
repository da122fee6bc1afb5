"""Pruning schedules: how sparse a mask is at which step. Frozen values, compared and printed like numbers."""

from abc import ABC, abstractmethod
from typing import Any, Self, TypeAlias

from attrs import evolve, field, frozen

from qprune.per_path import PerPath, one_number, per_path
from qprune.schedules.checks import is_duration, is_order, is_positive, is_sparsity, is_times
from qprune.schedules.durations import Duration, to_steps
from qprune.schedules.timeline import Timeline


class _Simulated(ABC):
    @abstractmethod
    def timeline(self, steps_per_epoch: int | None = None) -> Timeline:
        """The schedule in steps.

        Raises:
            ValueError: if its sparsity is a table, see `for_layer`.
        """

    def for_layer(self, path: str) -> Self:
        """The same schedule with the one sparsity that its table, if it has one, holds for the layer at ``path``.

        Example:
            >>> OneShot(sparsity={"stage1.*": 0.3, "*": 0.5}, at=2).for_layer("stage1.0.conv")
            OneShot(sparsity=0.3, at=2, measure=1)
        """
        held: Any = self
        table = getattr(held, "sparsity", None)
        return evolve(held, sparsity=table.at(path)) if isinstance(table, PerPath) else self

    def simulate(self, steps: int, steps_per_epoch: int | None = None) -> list[float]:
        """The sparsity of each of the first ``steps`` forwards.

        Example:
            >>> OneShot(sparsity=0.5, at=2).simulate(4)
            [0.0, 0.0, 0.5, 0.5]
        """
        timeline = self.timeline(steps_per_epoch)
        return [timeline.sparsity_at(step) for step in range(steps)]


@frozen
class OneShot(_Simulated):
    """Prune everything at once: measure ``measure`` steps, then drop ``sparsity`` of the channels at step ``at``.

    Args:
        sparsity: share of channels dropped, in [0, 1); in a rule also a table of them, see `qprune.per_path`.
        at: the step at which the mask is chosen and frozen (int, ``"800it"`` or ``"2ep"``).
        measure: how long activations are measured before it.

    Raises:
        ValueError: for a sparsity outside [0, 1) or a malformed duration.

    Example:
        >>> OneShot(sparsity=0.75, at=500, measure=50).timeline().measure
        (450, 500)
    """

    sparsity: float | PerPath = field(converter=per_path, validator=is_sparsity)
    at: Duration = field(validator=is_duration)
    measure: Duration = field(default=1, validator=is_positive)

    def timeline(self, steps_per_epoch: int | None = None) -> Timeline:
        """The schedule in steps."""
        at = to_steps(self.at, steps_per_epoch)
        first = max(0, at - to_steps(self.measure, steps_per_epoch))
        return Timeline(measure=(first, at), refreshes=((at, one_number(self.sparsity, "sparsity")),), end=at)


@frozen
class Stepwise(_Simulated):
    """Prune in ``times`` rising steps along the cubic of Zhu and Gupta (2017, arXiv:1710.01878, equation 1).

    The i-th of n refreshes, at ``start + i * every``, drops ``sparsity * (1 - (1 - (i + 1) / n)**3)``. Activations are
    measured from one ``every`` before ``start`` until the last refresh.

    Args:
        sparsity: final share of channels dropped, in [0, 1); in a rule also a table of them, see `qprune.per_path`.
        start: step of the first refresh.
        every: steps between refreshes.
        times: number of refreshes.

    Raises:
        ValueError: for a sparsity outside [0, 1), ``times`` below 1 or a malformed duration.

    Example:
        >>> Stepwise(sparsity=0.75, start=4, every=2, times=3).timeline().refreshes[-1]
        (8, 0.75)
    """

    sparsity: float | PerPath = field(converter=per_path, validator=is_sparsity)
    start: Duration = field(validator=is_duration)
    every: Duration = field(validator=is_positive)
    times: int = field(default=5, validator=is_times)

    def timeline(self, steps_per_epoch: int | None = None) -> Timeline:
        """The schedule in steps."""
        start, every = to_steps(self.start, steps_per_epoch), to_steps(self.every, steps_per_epoch)
        refreshes = tuple((start + i * every, self._cubic(i + 1)) for i in range(self.times))
        end = refreshes[-1][0]
        return Timeline(measure=(max(0, start - every), end), refreshes=refreshes, end=end)

    def _cubic(self, done: int) -> float:
        final: float = one_number(self.sparsity, "sparsity")
        return final * (1 - (1 - done / self.times) ** 3)


@frozen
class Layerwise(_Simulated):
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

    Raises:
        ValueError: for a sparsity outside [0, 1), an unknown order or a malformed duration.

    Example:
        >>> schedule = Layerwise(sparsity=0.5, start=10, interval=5, refresh=2)
        >>> schedule.slot(1).timeline().refreshes
        ((18, 0.5), (20, 0.5))
    """

    sparsity: float | PerPath = field(converter=per_path, validator=is_sparsity)
    start: Duration = field(validator=is_duration)
    interval: Duration = field(validator=is_positive)
    refresh: Duration = field(validator=is_positive)
    order: str = field(default="flow", validator=is_order)

    def slot(self, index: int, steps_per_epoch: int | None = None) -> "Layerwise":
        """The same schedule for site ``index`` of the sequence, with durations in steps.

        Raises:
            ValueError: if ``refresh`` is longer than ``interval``: the mask would never be chosen.
        """
        interval = to_steps(self.interval, steps_per_epoch)
        refresh = to_steps(self.refresh, steps_per_epoch)
        if refresh > interval:
            raise ValueError(f"refresh ({refresh} steps) must not be longer than interval ({interval} steps)")
        start = to_steps(self.start, steps_per_epoch) + index * (interval + 1)
        return evolve(self, start=start, interval=interval, refresh=refresh)

    def timeline(self, steps_per_epoch: int | None = None) -> Timeline:
        """The schedule in steps, for the first site; ``slot(l)`` gives the later ones."""
        first = self.slot(0, steps_per_epoch)
        start, interval, refresh = int(first.start), int(first.interval), int(first.refresh)
        times = [start + t for t in range(refresh, interval + 1, refresh)]
        sparsity = one_number(self.sparsity, "sparsity")
        refreshes = tuple((step, sparsity) for step in times)
        return Timeline(measure=(start, times[-1]), refreshes=refreshes, end=start + interval + 1)


@frozen
class Inherited(_Simulated):
    """Keep the frozen mask that came with ``init`` or a loaded checkpoint; nothing is measured or chosen.

    Example:
        >>> Inherited().timeline().refreshes
        ()
    """

    def timeline(self, steps_per_epoch: int | None = None) -> Timeline:
        """No events."""
        return Timeline()


PruneSchedule: TypeAlias = OneShot | Stepwise | Layerwise | Inherited
