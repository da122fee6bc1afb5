"""What a network can spare, group of channels by group, measured without training; and what to drop for a budget."""

from qprune.budget.budgets import COSTS, Budget, read_budgets
from qprune.budget.choosing import METHODS
from qprune.budget.costs import Choice
from qprune.budget.divergence import DIVERGENCES, compared_of, outputs_of
from qprune.budget.found import Found
from qprune.budget.groups import Group, find_groups
from qprune.budget.images import take_images
from qprune.budget.kept import Kept
from qprune.budget.latency import Latency, LatencyTable
from qprune.budget.layer_shapes import LayerShape
from qprune.budget.layer_times import Overhead
from qprune.budget.measuring import BITS, RATIOS, measure_sensitivity
from qprune.budget.searching import search_network
from qprune.budget.sensitivity import Curve, Sensitivity
from qprune.budget.showing import Shown
