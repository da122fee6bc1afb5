"""The nearest valid word for one that is misspelt."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: object, known: Iterable[str]) -> str:
    """``"; nearest: 'x'"``, or nothing where no known word is near.

    Example:
        >>> nearest("digit", ["digits", "cifar10"])
        "; nearest: 'digits'"
    """
    close = get_close_matches(str(word), list(known), n=1)
    return f"; nearest: {close[0]!r}" if close else ""
