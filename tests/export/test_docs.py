"""The page about exporting names what can be written, and nothing else."""

import re
from pathlib import Path

from qprune.export.functions import FUNCTIONS
from qprune.export.layers import LAYERS

PAGE = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
OF_QPRUNE = {"Align"}  # what `shrink` puts into networks
OPERATORS = {
    "iadd",
    "isub",
    "imul",
    "truediv",
    "itruediv",
    "floordiv",
    "ifloordiv",
    "ipow",
    "getitem",
}  # written as + - * / // [:]


def listed(title: str) -> list[str]:
    """Words in the paragraph below a heading."""
    return re.findall(r"`(\w+)`", PAGE.split(f"\n### {title}\n\n")[1].split("\n\n")[0])


def test_the_page_lists_the_layers_that_can_be_written() -> None:
    assert sorted(listed("Layers")) == sorted({kind.__name__ for kinds in LAYERS for kind in kinds} - OF_QPRUNE)


def test_the_page_lists_the_functions_that_can_be_written() -> None:
    assert sorted(listed("Functions")) == sorted(set(FUNCTIONS) - OPERATORS)
