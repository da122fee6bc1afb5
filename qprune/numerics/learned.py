"""``"learned"``: step sizes are trained with the weights."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from qprune.numerics.choices import NUMERICS
from qprune.numerics.numerics import Numerics
from qprune.numerics.ranging import Ranging


@frozen
class Learned(Ranging):
    """A step size and an offset that are trained, from where measuring left them; see `qprune.layers.LearnedQuant`.

    Source: Esser et al. (2020), arXiv:1902.08153; the offset after Bhalgat et al. (2020), arXiv:2004.09576.

    Example:
        >>> Learned().gradients
        ('clipped',)
    """

    learned: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("clipped",)

    def problem(self, word: str, numerics: Numerics, gradient: str) -> str:
        """Why steps cannot be learned in these numerics, or with this gradient; see `Ranging.problem`."""
        if not numerics.learnable:
            words = " or ".join(f'"{other}"' for other, each in NUMERICS.items() if each.learnable)
            return f'range = "learned" needs numerics = {words}; received numerics = "{word}"'
        if gradient not in self.gradients:
            return f'gradient must be "clipped", or left out, where range = "learned"; received "{gradient}"'
        return ""
