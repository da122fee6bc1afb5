"""Words for sentences: the nearest valid one for one that is misspelt, and what a library says is wrong."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# what Python itself says where a library did not check what it was given
_PYTHON = re.compile(
    r"not supported between instances|unsupported operand|object (?:is not|has no|cannot)|argument must be|"
    r"must be real number|can't multiply|could not convert|invalid literal|positional argument|list index"
)


def nearest(word: object, known: Iterable[str]) -> str:
    """``"; nearest: 'x'"``, or nothing where no known word is near.

    Example:
        >>> nearest("digit", ["digits", "cifar10"])
        "; nearest: 'digits'"
    """
    close = get_close_matches(str(word), list(known), n=1)
    return f"; nearest: {close[0]!r}" if close else ""


def reason(error: Exception) -> str:
    """What a library found wrong with a value, in its words; where it only stumbled over it, in ours.

    Example:
        >>> reason(TypeError("'<=' not supported between instances of 'float' and 'str'"))
        'a value is of the wrong kind'
    """
    text = str(error)
    return "a value is of the wrong kind" if _PYTHON.search(text) or not text else text
