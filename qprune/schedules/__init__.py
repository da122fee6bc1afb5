"""When a site is to be measured, pruned, frozen or quantized, as values that know no tensor."""

from qprune.schedules.durations import Duration, to_steps
from qprune.schedules.pruning import Inherited, Layerwise, OneShot, PruneSchedule, Stepwise
from qprune.schedules.quantizing import QuantizeFrom
from qprune.schedules.tables import Schedule, to_table
from qprune.schedules.timeline import Timeline

__all__ = [
    "Duration", "Inherited", "Layerwise", "OneShot", "PruneSchedule", "QuantizeFrom", "Schedule", "Stepwise",
    "Timeline", "to_steps", "to_table",
]  # fmt: skip
