"""Text that came out of a file, as a terminal may show it."""

import re

# what moves the cursor, colours or hides (C0, C1), breaks lines, turns the direction of writing, or cannot be encoded;
# not everything that Python calls unprintable: Persian and Hindi names hold joiners
_ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, keep: str = "") -> str:
    """The text with every character that a terminal would act upon written out.

    Args:
        text: from a file, or with text from a file in it.
        keep: characters that stay as they are, such as the line breaks of a table.

    Example:
        >>> print(visible("cat\\x1b[2J"))
        cat\\x1b[2J
    """
    return _ACTS.sub(lambda found: found[0] if found[0] in keep else _written_out(found[0]), text)


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
