"""The training loop and what watches it."""

from qprune.training.driver import ScheduleDriver

__all__ = ["ScheduleDriver"]
