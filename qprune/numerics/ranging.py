"""How quantizers come to their ranges: by measuring values, or by training; one object for each way, in `RANGES`."""

from typing import ClassVar

from attrs import frozen

from qprune.numerics.choices import NUMERICS
from qprune.numerics.numerics import Numerics


class Ranging:
    """One way in which a quantizer comes to its step size.

    Attributes:
        learned: whether the step size is a parameter that training changes.
        gradients: the gradients of values that go with it; the first is that of a quantizer that names none.
    """

    __slots__ = ()
    learned: ClassVar[bool] = False
    gradients: ClassVar[tuple[str, ...]] = ("straight", "clipped")

    def problem(self, word: str, numerics: Numerics, gradient: str) -> str:
        """Why it does not go together with these numerics or this gradient, in a sentence; empty if it does.

        Args:
            word: of the numerics.
            numerics: what it stands for.
            gradient: ``"straight"`` or ``"clipped"``.

        Example:
            >>> from qprune.numerics import Default, Learned
            >>> Learned().problem("default", Default(), "clipped")
            ''
        """
        if self.learned and not numerics.learnable:
            words = " or ".join(f'"{other}"' for other, each in NUMERICS.items() if each.learnable)
            return f'range = "learned" needs numerics = {words}; received numerics = "{word}"'
        if gradient not in self.gradients:
            return (
                f'gradient must be "{self.gradients[0]}", or left out, where range = "learned"; received "{gradient}"'
            )
        return ""


@frozen
class Measured(Ranging):
    """The running mean of the smallest and largest values, for as long as training lasts.

    Example:
        >>> Measured().learned
        False
    """


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


RANGES: dict[str, Ranging] = {"measured": Measured(), "learned": Learned()}
