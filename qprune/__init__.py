"""Train convolutional networks into small, low-precision ones, by joint layerwise channel pruning and quantization."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from qprune.version import __version__ as __version__

if TYPE_CHECKING:
    from qprune.api import build, fit, plan
    from qprune.assemble import swap
    from qprune.calibration import calibrate
    from qprune.comparison import compare
    from qprune.dense import to_dense
    from qprune.errors import PlanError, QpruneError, SpecError
    from qprune.reports import report
    from qprune.searches import search, sensitivity
    from qprune.shrinking import shrink
    from qprune.sweeps import sweep
    from qprune.trained import evaluate, export, load, predict, save, shrink_report, summary
    from qprune.training import ScheduleDriver

# each is imported when it is asked for, because most need torch, which takes seconds
_WHERE = {
    "api": ("build", "fit", "plan"),
    "assemble": ("swap",),
    "calibration": ("calibrate",),
    "comparison": ("compare",),
    "dense": ("to_dense",),
    "errors": ("PlanError", "QpruneError", "SpecError"),
    "reports": ("report",),
    "searches": ("search", "sensitivity"),
    "shrinking": ("shrink",),
    "sweeps": ("sweep",),
    "trained": ("evaluate", "export", "load", "predict", "save", "shrink_report", "summary"),
    "training": ("ScheduleDriver",),
}
_ROOM_OF = {name: room for room, names in _WHERE.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        found = getattr(import_module(f"qprune.{_ROOM_OF[name]}"), name)
    elif not name.startswith("_") and find_spec(f"qprune.{name}"):
        found = import_module(f"qprune.{name}")
    else:
        raise AttributeError(f"module 'qprune' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS, "__version__"]
