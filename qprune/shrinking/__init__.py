"""Dead channels leave the network: found by following it, cut out of it, and recorded so that a file can tell."""

from qprune.shrinking.analysis import Analysis, analyse
from qprune.shrinking.constants import Mode
from qprune.shrinking.cut import Cut, apply_cuts
from qprune.shrinking.fold import Fold, apply_fold, find_folds, fold_norms
from qprune.shrinking.kept import Kept, kept_by_masks
from qprune.shrinking.layer_rules import scale_and_shift
from qprune.shrinking.record import rebuild, record, restore_masks
from qprune.shrinking.shrink import Shrunk, cut_dead, shrink, shrink_with_facts
from qprune.shrinking.watching import evaluating
from qprune.shrinking.weights import rows
