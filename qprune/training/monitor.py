"""`Monitor`: the entry of the history by which a callback judges, and which way is better."""

from typing import Any

from attrs import field, frozen

from qprune.errors import TrainingError
from qprune.tasks import Task

LOSSES = ("loss", "val_loss")


def _is_mode(_: Any, __: Any, mode: str | None) -> None:
    if mode not in (None, "max", "min"):
        raise ValueError(f'mode must be "max" or "min"; received {mode!r}')


@frozen
class Monitor:
    """Picks a value out of the history's entries, and compares it."""

    name: str | None = None  # the entry's name; by default the task's own on the validation split
    # "max" or "min"; by default "min" for losses and the task's own for all else
    mode: str | None = field(default=None, validator=_is_mode)

    def name_for(self, task: Task) -> str:
        """The name of the entry."""
        return self.name or f"val_{task.monitor}"

    def value(self, task: Task, logs: dict[str, Any], owner: str) -> float:
        """The monitored value."""
        name = self.name_for(task)
        if name not in logs:
            held_out = any(there.startswith("val_") for there in logs)
            hint = "" if held_out else " Names with val_ need a validation split."
            raise TrainingError(
                f'{owner} monitors "{name}", which the history does not have; it has {", ".join(logs)}. '
                f"Give one of them as monitor.{hint}"
            )
        return float(logs[name])

    def better(self, task: Task, value: float, best: float | None, min_delta: float = 0.0) -> bool:
        """Whether ``value`` is better than ``best`` by more than ``min_delta``; NaN never is."""
        if value != value:
            return False
        mode = self.mode or ("min" if self.name_for(task) in LOSSES else task.mode)
        return best is None or (1 if mode == "max" else -1) * (value - best) > min_delta
