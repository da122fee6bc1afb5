"""One traced picture of a network: which layer feeds which, with which shapes, in which order."""

from qprune.flow.calls import NORMS, Call, Flow, Given, Shape
from qprune.flow.tracing import hooked_copy, trace, unhooked_copy

__all__ = ["NORMS", "Call", "Flow", "Given", "Shape", "hooked_copy", "trace", "unhooked_copy"]
