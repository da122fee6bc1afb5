"""Dead channels leave the network."""

from qprune.shrink.shrink import shrink

__all__ = ["shrink"]
