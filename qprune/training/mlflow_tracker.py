"""`MLflowTracker`: a training as a run of MLflow."""

import os
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Any, ClassVar

from qprune.training.tracker import Point, Tracker

STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
AT_ONCE = {"metrics": 1000, "params": 100}  # what a server takes in one request
LONGEST = 500  # characters of a parameter that every version of a server takes
EXPERIMENT = "qprune"
ALWAYS = "train/loss"  # a metric that every entry has


class MLflowTracker(Tracker):
    """Tells MLflow of a training, where ``MLFLOW_TRACKING_URI`` says, in the experiment ``MLFLOW_EXPERIMENT_NAME``.

    MLflow knows what it was told: after a kill nothing is told twice.

    Example:
        >>> MLflowTracker("digits/mine", {"train.batch": 32}).title
        'MLflow'
    """

    title: ClassVar[str] = "MLflow"
    package: ClassVar[str] = "mlflow"
    client: Any

    def begin(self) -> int:
        """Open the run, or make one with the parameters."""
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient()
        if self.id:
            self.client.update_run(self.id, "RUNNING")
            return max((point.step for point in self.client.get_metric_history(self.id, ALWAYS)), default=-1)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.id = self.client.create_run(experiment, run_name=self.name).info.run_id
        self._send_parameters()
        return -1

    def _send_parameters(self) -> None:
        from mlflow.entities import Param

        most = AT_ONCE["params"]
        pairs = [Param(key, str(value)[:LONGEST]) for key, value in self.parameters.items()]
        for start in range(0, len(pairs), most):
            self.client.log_batch(self.id, params=pairs[start : start + most])

    def send(self, points: Sequence[Point]) -> None:
        """Add numbers, many in one request."""
        from mlflow.entities import Metric

        now, most = int(1000 * time()), AT_ONCE["metrics"]
        metrics = [Metric(tag, value, now, step) for tag, value, step in points]
        for start in range(0, len(metrics), most):
            self.client.log_batch(self.id, metrics=metrics[start : start + most])

    def send_files(self, files: Sequence[Path]) -> None:
        """Add files as artifacts."""
        for file in files:
            self.client.log_artifact(self.id, str(file))

    def end(self, outcome: str) -> None:
        """Give the run its status."""
        self.client.set_terminated(self.id, STATUS[outcome])
