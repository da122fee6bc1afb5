"""`WandbTracker`: a training as a run of Weights & Biases."""

import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from qprune.training.tracker import Point, Tracker

PROJECT = "qprune"


class WandbTracker(Tracker):
    """Tells Weights & Biases of a training, in the project ``WANDB_PROJECT``; offline with ``WANDB_MODE=offline``.

    Points stand over the optimizer step, not over the number of calls.

    Example:
        >>> WandbTracker("digits/mine", {"train.batch": 32}).title
        'Weights & Biases'
    """

    title: ClassVar[str] = "Weights & Biases"
    package: ClassVar[str] = "wandb"
    run: Any

    def begin(self) -> int:
        """Open the run, or make one with the parameters."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=self.name,
            id=self.id or None,
            resume="allow" if self.id else None,
            config=self.parameters,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.id = self.run.id
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        return -1  # a run that is offline cannot be asked; the checkpoint says what it was told

    def send(self, points: Sequence[Point]) -> None:
        """Add numbers, those of a step together."""
        for step, group in groupby(sorted(points, key=_step), key=_step):
            self.run.log({"step": step} | {tag: value for tag, value, _ in group})

    def send_files(self, files: Sequence[Path]) -> None:
        """Add files as an artifact, which keeps copies of them."""
        import wandb

        artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", self.name), type="run")
        for file in files:
            artifact.add_file(str(file), name=file.name)
        self.run.log_artifact(artifact)

    def end(self, outcome: str) -> None:
        """Close the run; what is pending is sent before."""
        self.run.finish(exit_code=0 if outcome == "finished" else 1)


def _step(point: Point) -> int:
    return point[2]
