"""A network as a graph of operations, without its code: for files, and for what writes other files of it.

`qprune.graph.following.follow`, which makes one, is imported where it is needed: it takes torch's compiler with it.
"""

from qprune.graph.folding import hint, place_of
from qprune.graph.opening import net_from
from qprune.graph.operations import leaf_type
from qprune.graph.saving import graph_of
