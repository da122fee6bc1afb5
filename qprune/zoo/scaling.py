"""How a width in (0, 1] becomes a number of channels."""


def scaled(channels: int, width: float) -> int:
    """Return ``channels`` at ``width``: rounded down, never fewer than one.

    Args:
        channels: channels of the full network.
        width: share of them to keep, in (0, 1].

    Example:
        >>> scaled(64, 0.5), scaled(3, 0.1)
        (32, 1)
    """
    return max(1, int(width * channels))
