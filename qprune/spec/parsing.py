"""TOML that anybody may have written, as a table; what would take the parser minutes is refused before."""

import re
import tomllib

from qprune.spec.values import Table

LARGEST = 2**21  # bytes of a file and characters of a text; 5,000 declared layers take less than half of it
PARTS = 20  # of a dotted key; a spec needs 3
_TEXT = r"""(?:"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_PART = rf"(?:[A-Za-z0-9_-]++|{_TEXT})"
# tomllib takes time and memory of the square of the parts: 20 s and 780 MB for 50,000
_LONG_KEY = rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{PARTS}}}"
_TOKEN = re.compile(
    rf"""(?P<key>{_LONG_KEY})|\"{{3}}(?:[^\\]|\\.)*?(?:\"{{3}}|\Z)|'{{3}}.*?(?:'{{3}}|\Z)|{_TEXT}|\#[^\n]*+""",
    re.DOTALL,
)


def parse_toml(text: str) -> Table:
    """Parse TOML.

    Raises:
        ValueError: for what is none, is larger than 2 MiB, is nested too deep, or has a key or a number that goes on
            and on; its text continues a sentence that names the file.

    Example:
        >>> parse_toml("seed = 3")
        {'seed': 3}
    """
    if len(text) > LARGEST:
        raise ValueError(f"is {len(text):,} characters long; a spec has at most {LARGEST:,}")
    if key := next((found["key"] for found in _TOKEN.finditer(text) if found["key"]), None):
        raise ValueError(f"has a key of more than {PARTS} parts, {key[:20]} ...; a spec needs few levels")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"at line {text.rstrip().count(chr(10)) + 1}, the end of the file"
        raise ValueError(f"is not TOML: {str(error).replace('at end of document', last)}") from None
    except RecursionError:
        raise ValueError("is nested too deep; a spec needs few levels") from None
    except ValueError:  # Python reads at most 4,300 digits
        raise ValueError("is not TOML as qprune reads it: it holds a number of thousands of digits") from None
