"""`RANGES`: every way to come to a range by the word that rules and layers know it by."""

from qprune.numerics.learned import Learned
from qprune.numerics.measured import Measured
from qprune.numerics.ranging import Ranging

RANGES: dict[str, Ranging] = {"measured": Measured(), "learned": Learned()}


def ranging_of(word: str) -> Ranging:
    """The way that a word stands for.

    Raises:
        ValueError: for a word that is not in `RANGES`.

    Example:
        >>> ranging_of("measured")
        Measured()
    """
    if word not in RANGES:
        words = " or ".join(f'"{known}"' for known in RANGES)
        raise ValueError(f"range must be {words}; received {word!r}")
    return RANGES[word]
