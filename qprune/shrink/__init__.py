"""Dead channels leave the network: found by following it, cut out of it, and recorded so that a file can tell."""

from qprune.shrink.analysis import Analysis, analyse
from qprune.shrink.constants import Mode
from qprune.shrink.cut import Cut, apply_cuts
from qprune.shrink.fold import Fold, apply_fold, find_folds, fold_norms
from qprune.shrink.kept import Kept, kept_by_masks
from qprune.shrink.layer_rules import scale_and_shift
from qprune.shrink.record import rebuild, record, restore_masks
from qprune.shrink.shrink import Shrunk, cut_dead, shrink, shrink_with_facts
from qprune.shrink.watching import evaluating
from qprune.shrink.weights import rows
