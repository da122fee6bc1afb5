"""How channels are ranked: one object for each importance, all in one dict, `IMPORTANCES`; no torch at import."""

from qprune.importances.activation_l0 import ActivationL0
from qprune.importances.activation_l1 import ActivationL1
from qprune.importances.bn_scale import BnScale
from qprune.importances.choices import IMPORTANCES, fitting
from qprune.importances.importance import Importance, Measured, Scored
from qprune.importances.random import Random
from qprune.importances.taylor import Taylor
from qprune.importances.tied import Tied
from qprune.importances.weight_l1 import WeightL1
