"""When a quantizer starts to quantize."""

from attrs import field, frozen

from qprune.schedules.checks import is_duration, is_positive
from qprune.schedules.durations import Duration, to_steps
from qprune.schedules.timeline import Timeline


@frozen
class QuantizeFrom:
    """Pass values through until ``start``, quantize from then on.

    The range is measured for ``measure`` steps before that and for as long as training lasts. The default, 100, is the
    memory of the running mean (its weight never falls below 0.01). A quantizer never acts before it has measured one
    step.

    Args:
        start: the step from which values are quantized (int, ``"800it"`` or ``"0.5ep"``).
        measure: how long the range is measured before it.

    Raises:
        ValueError: for a malformed duration.

    Example:
        >>> QuantizeFrom(start=200).timeline().measure
        (100, None)
    """

    start: Duration = field(validator=is_duration)
    measure: Duration = field(default=100, validator=is_positive)

    def timeline(self, steps_per_epoch: int | None = None) -> Timeline:
        """The schedule in steps; ``activate`` is at least 1, after one measured step."""
        start = max(1, to_steps(self.start, steps_per_epoch))
        first = max(0, start - to_steps(self.measure, steps_per_epoch))
        return Timeline(measure=(first, None), activate=start, end=start)

    def simulate(self, steps: int, steps_per_epoch: int | None = None) -> list[bool]:
        """Whether each of the first ``steps`` forwards is quantized.

        Example:
            >>> QuantizeFrom(2).simulate(4)
            [False, False, True, True]
        """
        start = self.timeline(steps_per_epoch).activate or 0
        return [step >= start for step in range(steps)]
