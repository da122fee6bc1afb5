"""`Recipe`: what is to become of a network, as a word such as ``a75_w8a8``."""

import re

from attrs import frozen

from qprune.errors import SpecError

WORD = re.compile(r"(?:a(?P<dropped>[1-9]\d))?_?(?:w(?P<weights>[2-8])a(?P<values>[2-8]))?")
BUDGET = "budget"


@frozen
class Recipe:
    """Percent of the channels that are dropped, and bits of weights and of activations.

    Example:
        >>> Recipe.of("a75_w4a8")
        Recipe(dropped=75, weights=4, values=8, searched=False)
    """

    dropped: int | None = None  # percent; None where nothing is pruned
    weights: int | None = None  # bits; None where nothing is quantized
    values: int | None = None  # bits of activations; None as for ``weights``
    searched: bool = False  # whether a search chooses what to drop, for a budget

    @classmethod
    def of(cls, word: str) -> "Recipe":
        """Read a recipe: ``a75``, ``w8a8``, ``a75_w4a4`` and so on, or ``budget``."""
        if word == BUDGET:
            return cls(searched=True)
        found = WORD.fullmatch(word)
        if not word or found is None or word.startswith("_") or word.endswith("_"):
            raise SpecError(
                "A recipe says how many percent of the channels are dropped, and the bits of weights and activations: "
                f'a75, w8a8 (bits from 2 to 8), a75_w8a8; or it is budget, for a search. Received "{word}".'
            )
        dropped, weights, values = (int(part) if part else None for part in found.groups())
        return cls(dropped, weights, values)

    @property
    def bits(self) -> str:
        """The part about bits, ``"w8a8"``; empty without."""
        return "" if self.weights is None else f"w{self.weights}a{self.values}"

    @property
    def word(self) -> str:
        """The recipe in its usual spelling."""
        dropped = "" if self.dropped is None else f"a{self.dropped}"
        return BUDGET if self.searched else "_".join(part for part in (dropped, self.bits) if part)
