"""A schedule in steps, the only form that the driver uses."""

from attrs import frozen


@frozen
class Timeline:
    """One site's events in optimizer steps. Step ``s`` acts before forward ``s``, counted from 0.

    Attributes:
        measure: half-open range ``(first, last)`` of forwards in which the site measures; ``last`` is None for "to the
            end".
        refreshes: pairs ``(step, sparsity)`` at which a mask is chosen anew; the last one freezes it.
        activate: the step from which a quantizer quantizes.
        end: the step at which nothing is left to happen.

    Example:
        >>> Timeline(measure=(3, 4), refreshes=((4, 0.5),), end=4).sparsity_at(4)
        0.5
    """

    measure: tuple[int, int | None] = (0, 0)
    refreshes: tuple[tuple[int, float], ...] = ()
    activate: int | None = None
    end: int = 0

    @property
    def freeze(self) -> int | None:
        """The step of the last refresh, from which on the mask never changes; None without any."""
        return self.refreshes[-1][0] if self.refreshes else None

    def measuring(self, step: int) -> bool:
        """Whether forward ``step`` is measured."""
        first, last = self.measure
        return first <= step and (last is None or step < last)

    def sparsity_at(self, step: int) -> float:
        """The share of channels dropped in forward ``step``, 0 before the first refresh."""
        return next((sparsity for at, sparsity in reversed(self.refreshes) if at <= step), 0.0)

    def steps(self) -> tuple[int, ...]:
        """Every step at which something begins, changes or ends, sorted, none twice."""
        first, last = self.measure
        measure = {first, last} if first != last else set()
        marks = {at for at, _ in self.refreshes} | {self.activate} | measure
        return tuple(sorted(mark for mark in marks if mark is not None))
