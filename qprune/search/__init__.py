"""What a network can spare, group of channels by group: measured, without training."""

from qprune.search.divergence import DIVERGENCES, compared_of, outputs_of
from qprune.search.groups import Group, find_groups
from qprune.search.images import take_images
from qprune.search.kept import Kept
from qprune.search.measuring import BITS, RATIOS, measure_sensitivity
from qprune.search.sensitivity import Curve, Sensitivity

__all__ = [
    "BITS",
    "DIVERGENCES",
    "RATIOS",
    "Curve",
    "Group",
    "Kept",
    "Sensitivity",
    "compared_of",
    "find_groups",
    "measure_sensitivity",
    "outputs_of",
    "take_images",
]
