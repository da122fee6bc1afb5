"""Dead channels leave the network: found by following it, cut out of it, and recorded so that a file can tell."""

from qprune.shrink.analysis import Analysis, analyse
from qprune.shrink.constants import Mode
from qprune.shrink.cut import Cut, apply_cuts
from qprune.shrink.fold import Fold, fold_norms
from qprune.shrink.record import rebuild, record
from qprune.shrink.shrink import Shrunk, shrink, shrink_with_facts

__all__ = [
    "Analysis",
    "Cut",
    "Fold",
    "Mode",
    "Shrunk",
    "analyse",
    "apply_cuts",
    "fold_norms",
    "rebuild",
    "record",
    "shrink",
    "shrink_with_facts",
]
