"""What is minimized and measured: one file per kind of problem."""

from qprune.tasks.classification import Classification
from qprune.tasks.task import Task

__all__ = ["Classification", "Task"]
