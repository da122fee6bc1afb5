import pytest

from qprune.errors import CheckpointError, SpecError, as_lines
from qprune.escaping import visible
from qprune.spec.values import shown
from qprune.tables import table


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[2J", "\\x1b[2J"),  # clears the screen
        ("\x9b31m", "\\x9b31m"),  # the same in one character
        ("a\r\nb\x7f", "a\\r\\nb\\x7f"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("\u2066x\u2069\u2028\u200f", "\\u2066x\\u2069\\u2028\\u200f"),
        ("\udcff", "\\udcff"),  # of a file's name that is no UTF-8; no terminal can show it
    ],
)
def test_characters_that_a_terminal_acts_upon_are_written_out(text, seen):
    assert visible(text) == seen


@pytest.mark.parametrize("text", ["road", "Straße", "猫", "می\u200cخواهم", "👩\u200d🔬", "a\u3000b", "back\\slash"])
def test_writing_of_all_kinds_stays_as_it_is(text):
    assert visible(text) == text


def test_characters_that_are_wanted_are_kept():
    assert visible("a\nb\tc\x1b", keep="\n\t") == "a\nb\tc\\x1b"


def test_messages_tables_and_values_are_written_out():
    assert str(CheckpointError("x\x1b[2J\ny")) == "x\\x1b[2J\ny"
    assert SpecError("x\x1b\ny\x1b").mistakes == ("x\\x1b", "y\\x1b")
    assert table(["na\x1bme"], [["a\nb"]]).splitlines() == ["na\\x1bme", "--------", "a\\nb"]
    assert shown("\x9b\u202e\n") == '"\\x9b\\u202e\\n"'


def test_a_message_has_at_most_fifty_mistakes_of_bounded_length():
    assert as_lines(["a.", "b."]) == "a.\nb."
    lines = as_lines(f"{number}." for number in range(1234)).split("\n")
    assert (len(lines), lines[0], lines[49], lines[50]) == (51, "0.", "49.", "... and 1,184 more mistakes.")
    assert as_lines(["x" * 10_000]) == f"{'x' * 1999}…"
