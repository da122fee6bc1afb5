"""What every pruning schedule can be asked: its time line, its part of a run, its sparsity for one layer."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from attrs import evolve, fields

from qprune.per_path import PerPath
from qprune.schedules.checks import check_moments
from qprune.schedules.durations import Duration, to_steps
from qprune.schedules.timeline import Timeline


class PruningBase(ABC):
    """A frozen value that says when a mask is measured and chosen, and how sparse it is, as a `Timeline` in steps."""

    moments: ClassVar[tuple[str, ...]] = ()  # the keys that say when it acts, in place of which a finish may stand
    finish: Duration | None = None

    def __attrs_post_init__(self) -> None:
        if self.moments:
            names = (*self.moments, "finish")
            check_moments(self.moments, [name for name in names if getattr(self, name) is not None])

    def __repr__(self) -> str:
        given: Any = {f.name: getattr(self, f.name) for f in fields(type(self))}  # type: ignore[arg-type]
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        return f"{type(self).__name__}({shown})"

    @abstractmethod
    def timeline(self, steps_per_epoch: int | None = None, steps: int | None = None) -> Timeline:
        """The schedule in steps.

        Args:
            steps_per_epoch: optimizer steps of one epoch, needed for durations in epochs.
            steps: optimizer steps of the run, needed where `finish` is a share of it.

        Raises:
            ValueError: if its sparsity is a table, see `for_layer`; if what is needed is not there.
        """

    def spread(self, sites: int = 1, steps_per_epoch: int | None = None, steps: int | None = None) -> Self:
        """The schedule with moments in steps, spread up to its `finish`; itself if it has moments already.

        Args:
            sites: how many sites a layerwise sequence has; coupled ones count once. Of others it means nothing.
            steps_per_epoch: optimizer steps of one epoch, needed for a finish in epochs.
            steps: optimizer steps of the run, needed where `finish` is a share of it.

        Raises:
            ValueError: if what is needed is not there, or does not fit before the finish.

        Example:
            >>> OneShot(sparsity=0.5, finish="35%").spread(steps=1000)
            OneShot(sparsity=0.5, at=350, measure=1)
        """
        if self.finish is None:
            return self
        moments: Any = self._spread(to_steps(self.finish, steps_per_epoch, steps), sites)
        return evolve(self, finish=None, **moments)  # type: ignore[misc]

    def slot(self, index: int, steps_per_epoch: int | None = None) -> Self:
        """The schedule for site ``index`` of those that have it: itself, unless they act one after the other.

        Args:
            index: from 0.
            steps_per_epoch: optimizer steps of one epoch, needed for durations in epochs.
        """
        return self

    def _spread(self, end: int, sites: int) -> dict[str, int]:
        return {}

    def _too_many(self, end: int, what: str, least: int) -> str:
        return (
            f"finish = {self.finish!r} is step {end}, and {what} take at least {least} steps; train longer "
            "(train.length) or finish later"
        )

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
        """The sparsity of each of the first ``steps`` forwards; a `finish` is taken as a share of these steps.

        Example:
            >>> OneShot(sparsity=0.5, at=2).simulate(4)
            [0.0, 0.0, 0.5, 0.5]
        """
        timeline = self.timeline(steps_per_epoch, steps)
        return [timeline.sparsity_at(step) for step in range(steps)]
