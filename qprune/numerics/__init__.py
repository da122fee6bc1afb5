"""How ranges become grids of integers: one object for each numerics, all in the dict `NUMERICS`; no torch at import."""

from qprune.numerics.choices import NUMERICS, numerics_of
from qprune.numerics.default import Default
from qprune.numerics.exact import Exact
from qprune.numerics.numerics import Numerics, channel_extremes
from qprune.numerics.paper import Paper
from qprune.numerics.ranging import RANGES, Learned, Measured, Ranging

__all__ = [
    "NUMERICS",
    "RANGES",
    "Default",
    "Exact",
    "Learned",
    "Measured",
    "Numerics",
    "Paper",
    "Ranging",
    "channel_extremes",
    "numerics_of",
]
