"""Train convolutional networks into small, low-precision ones, by joint layerwise channel pruning and quantization."""

from qprune.api import build, fit, plan
from qprune.assemble import swap
from qprune.calibration import calibrate
from qprune.comparison import compare
from qprune.dense import to_dense
from qprune.errors import PlanError, QpruneError, SpecError
from qprune.reports import report
from qprune.searches import search, sensitivity
from qprune.shrink import shrink
from qprune.sweeps import sweep
from qprune.trained import evaluate, export, load, predict, save, shrink_report, summary
from qprune.training import ScheduleDriver
from qprune.version import __version__ as __version__

__all__ = [
    "PlanError",
    "QpruneError",
    "ScheduleDriver",
    "SpecError",
    "build",
    "calibrate",
    "compare",
    "evaluate",
    "export",
    "fit",
    "load",
    "plan",
    "predict",
    "report",
    "save",
    "search",
    "sensitivity",
    "shrink",
    "shrink_report",
    "summary",
    "swap",
    "sweep",
    "to_dense",
]

# where a program finds what it hands to these functions: what `dir` shows beside them
_ROOMS = ("data", "errors", "layers", "schedules", "spec", "tasks", "training", "zoo")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
