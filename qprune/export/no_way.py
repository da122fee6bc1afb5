"""`NoWayError`: why a call cannot be written, in words that end a sentence."""


class NoWayError(Exception):
    """Raised where a way into a file does not take these arguments; the sentence around it names the call."""
