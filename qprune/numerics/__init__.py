"""How quantizers come to ranges, and ranges to grids: the objects of `RANGES` and `NUMERICS`; no torch at import."""

from qprune.numerics.choices import NUMERICS, numerics_of
from qprune.numerics.default import Default
from qprune.numerics.exact import SMALLEST_STEP, Exact, power_of_two
from qprune.numerics.learned import Learned
from qprune.numerics.measured import Measured
from qprune.numerics.numerics import Numerics, channel_extremes
from qprune.numerics.paper import Paper
from qprune.numerics.ranges import RANGES, ranging_of
from qprune.numerics.ranging import Ranging
