"""The page about exporting names the operations that can be written, and nothing else."""

import re
from pathlib import Path

from qprune.export.functions import FUNCTIONS

PAGE = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
# of side lengths, of results that are several, and other names of what is listed
OTHERS = {"getitem", "truediv", "floordiv", "mod", "sym_max", "sym_min", "to_copy", "unsafe_view"}


def test_the_page_lists_the_operations_that_can_be_written() -> None:
    paragraph = PAGE.split("a forward may do\n\n")[1].split("\n\n")[0]
    assert sorted(re.findall(r"`(\w+)`", paragraph)) == sorted({word.strip("_") for word in FUNCTIONS} - OTHERS)
