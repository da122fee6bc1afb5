"""A network as a graph of operations, without its code: for files, and for what writes other files of it."""

from qprune.graph.following import follow
from qprune.graph.opening import net_from
from qprune.graph.operations import leaf_type
from qprune.graph.saving import graph_of

__all__ = ["follow", "graph_of", "leaf_type", "net_from"]
