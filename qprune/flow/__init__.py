"""One traced picture of a network: which layer feeds which, with which shapes, in which order."""

from qprune.flow.calls import NORMS, Call, Flow, Given, Layout, Moves, Shape, axis_of, usual_layout
from qprune.flow.failing import LIBRARIES, line_of, named, shapes
from qprune.flow.layouts import ELEMENTWISE, reduced_dims
from qprune.flow.tracing import hooked_copy, host_picture, leaves, meta_copy, trace, unhooked_copy
