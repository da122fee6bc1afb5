"""``"measured"``: ranges are those of the values that were seen."""

from attrs import frozen

from qprune.numerics.ranging import Ranging


@frozen
class Measured(Ranging):
    """The running mean of the smallest and largest values, for as long as training lasts.

    Example:
        >>> Measured().learned
        False
    """
