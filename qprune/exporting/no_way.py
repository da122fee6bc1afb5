"""`NoWayError`: why a call cannot be written, in words that end a sentence."""


class NoWayError(Exception):
    """Raised where a way into a file does not take these arguments; the sentence around it names the call."""


class NeverError(NoWayError):
    """Raised where no other way may be tried, since a file cannot do what is asked."""
