"""`IMPORTANCES`: every importance by the word that specs and layers know it by."""

from qprune.importances.activation_l0 import ActivationL0
from qprune.importances.activation_l1 import ActivationL1
from qprune.importances.bn_scale import BnScale
from qprune.importances.importance import Importance
from qprune.importances.random import Random
from qprune.importances.taylor import Taylor
from qprune.importances.tied import Tied
from qprune.importances.weight_l1 import WeightL1

IMPORTANCES: dict[str, Importance] = {
    "activation-l1": ActivationL1(),
    "activation-l0": ActivationL0(),
    "taylor": Taylor(),
    "weight-l1": WeightL1(),
    "bn-scale": BnScale(),
    "random": Random(),
    "tied": Tied(),
}


def fitting(*sides: str) -> tuple[str, ...]:
    """The words of the importances that may stand at any of these sides; the first is the default there.

    Example:
        >>> fitting("weight")
        ('weight-l1', 'random')
    """
    return tuple(word for word, importance in IMPORTANCES.items() if set(sides) & set(importance.sides))
