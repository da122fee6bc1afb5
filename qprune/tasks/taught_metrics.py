"""The metrics of a task, and beside them what a teacher adds to the loss."""

from typing import Any

from torchmetrics import MetricCollection

from qprune.tasks.distilled import Taught
from qprune.tasks.frechet import PartMeans

NAME = "distillation"


class TaughtMetrics(MetricCollection):
    """A task's metrics, given `Taught` in training, and in evaluation, without a teacher, the task's own outputs."""

    def __init__(self, metrics: MetricCollection) -> None:
        own: dict[str, Any] = dict(metrics.items(keep_base=True, copy_state=False))
        groups = [*metrics.compute_groups.values(), [NAME]] if metrics.compute_groups else False
        super().__init__(own | {NAME: _Means([NAME])}, compute_groups=groups)

    def update(self, output: Any, target: Any) -> None:  # type: ignore[override]
        """Add a batch; the term of the teacher too, if there is one."""
        if isinstance(output, Taught):
            self.get_submodule(NAME).add(output, target)  # type: ignore[operator]
            output = output.output
        super().update(output, target)


class _Means(PartMeans):
    """Fed by `add`: a collection hands the same things to all of its metrics, which here are outputs without parts."""

    def add(self, taught: Any, target: Any) -> None:
        super().update(taught, target)

    def update(self, output: Any, target: Any) -> None:
        """Leave the task's outputs alone."""
