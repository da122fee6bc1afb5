"""What a library says is wrong with a value, in words for people."""

import re

# what Python itself says where a library did not check what it was given
_PYTHON = re.compile(
    r"not supported between instances|unsupported operand|object (?:is not|has no|cannot)|argument must be|"
    r"must be real number|can't multiply|could not convert|invalid literal|positional argument|list index"
)


def reason(error: Exception) -> str:
    """What a library found wrong with a value, in its words; where it only stumbled over it, in ours.

    Example:
        >>> reason(TypeError("'<=' not supported between instances of 'float' and 'str'"))
        'a value is of the wrong kind'
    """
    text = str(error)
    return "a value is of the wrong kind" if _PYTHON.search(text) or not text else text
