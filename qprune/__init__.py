"""Train convolutional networks into small, low-precision ones, by joint layerwise channel pruning and quantization."""

from qprune.api import (
    ScheduleDriver,
    build,
    calibrate,
    evaluate,
    export,
    fit,
    load,
    plan,
    predict,
    save,
    shrink,
    shrink_report,
    summary,
    swap,
    to_dense,
)
from qprune.errors import PlanError, QpruneError, SpecError

__all__ = [
    "PlanError",
    "QpruneError",
    "ScheduleDriver",
    "SpecError",
    "build",
    "calibrate",
    "evaluate",
    "export",
    "fit",
    "load",
    "plan",
    "predict",
    "save",
    "shrink",
    "shrink_report",
    "summary",
    "swap",
    "to_dense",
]
