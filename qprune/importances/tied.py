"""``"tied"``: what other masks chose."""

from typing import ClassVar

from attrs import frozen

from qprune.importances.importance import Importance


@frozen
class Tied(Importance):
    """Nothing of its own: a normalization's mask follows the weight masks before it. No rule asks for it.

    Example:
        >>> Tied().follows
        True
    """

    follows: ClassVar[bool] = True
