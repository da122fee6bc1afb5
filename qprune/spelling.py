"""Suggestions for words that are misspelt: the known ones that look most like them."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def similar(word: object, known: Iterable[str]) -> list[str]:
    """Up to three of the known words that look like ``word``, the most similar first; capitals do not matter.

    Example:
        >>> similar("relu", ["ReLU6", "ReLU", "Conv2d"])
        ['ReLU', 'ReLU6']
    """
    by_lower = {name.lower(): name for name in known}
    return [by_lower[close] for close in get_close_matches(str(word).lower(), by_lower, n=3)]


def closest(word: object, known: Iterable[str]) -> str:
    """The known word that looks most like ``word``; an empty string if none does.

    Example:
        >>> closest("outputs", ["input", "output"])
        'output'
    """
    return next(iter(similar(word, known)), "")


def nearest(word: object, known: Iterable[str], shown: Callable[[str], str] = '"{}"'.format) -> str:
    """End a sentence with the known word that looks most like ``word``; an empty string if none does.

    Args:
        word: what was received.
        known: what it could have been.
        shown: how the suggestion is written: by default in double quotes, as in TOML; ``repr`` where Python is spoken.

    Example:
        >>> nearest("outputs", ["input", "output"])
        '; nearest: "output"'
    """
    found = closest(word, known)
    return f"; nearest: {shown(found)}" if found else ""
