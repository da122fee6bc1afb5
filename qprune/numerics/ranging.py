"""What a ranging is: how quantizers come to their ranges."""

from __future__ import annotations

from typing import ClassVar

from qprune.numerics.numerics import Numerics


class Ranging:
    """One way in which a quantizer comes to its step size."""

    __slots__ = ()
    learned: ClassVar[bool] = False  # whether the step size is a parameter that training changes
    # the gradients of values that go with it; the first is that of a quantizer that names none
    gradients: ClassVar[tuple[str, ...]] = ("straight", "clipped")

    def problem(self, word: str, numerics: Numerics, gradient: str) -> str:
        """Why it does not go together with these numerics or this gradient, in a sentence; empty if it does.

        Args:
            word: of the numerics.
            numerics: what it stands for.
            gradient: ``"straight"`` or ``"clipped"``.

        Example:
            >>> from qprune.numerics import Default, Measured
            >>> Measured().problem("default", Default(), "straight")
            ''
        """
        return ""
