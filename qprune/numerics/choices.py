"""`NUMERICS`: every numerics by the word that specs and layers know it by."""

from qprune.numerics.default import Default
from qprune.numerics.exact import Exact
from qprune.numerics.numerics import Numerics
from qprune.numerics.paper import Paper

NUMERICS: dict[str, Numerics] = {"default": Default(), "paper": Paper(), "exact": Exact()}


def numerics_of(word: str) -> Numerics:
    """The numerics that a word stands for.

    Raises:
        ValueError: for a word that is not in `NUMERICS`.

    Example:
        >>> numerics_of("paper")
        Paper()
    """
    if word not in NUMERICS:
        *others, last = [f'"{known}"' for known in NUMERICS]
        raise ValueError(f"numerics must be {', '.join(others)} or {last}; received {word!r}")
    return NUMERICS[word]
