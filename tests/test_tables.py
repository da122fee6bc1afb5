import pytest

from qprune.tables import bits_list, kept, short, table


def test_columns_are_aligned():
    text = table(["a", "count"], [["long", "1"], ["b", "22"], ["sum", "23"]], right="lr", footer=1)
    assert text.splitlines() == [
        "a     count",
        "-----------",
        "long      1",
        "b        22",
        "-----------",
        "sum      23",
    ]


def test_a_table_without_rows_has_its_header():
    assert table(["a", "b"], []) == "a  b\n----"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"one cell per column \(2\); received 1: \['x'\]"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.96, "1 k"),
        (1000, "1 k"),
        (64_947_264, "64.95 M"),
        (9.1e11, "910 G"),
        (2.5e16, "25 P"),
    ],
)
def test_numbers_are_short(number, text):
    assert short(number) == text


def test_units_keep_their_prefix():
    assert (short(12, "B"), short(44_888_976, "B")) == ("12 B", "44.89 MB")


def test_kept_counts_show_what_is_gone():
    assert (kept(1234, 5678), kept(5678, 5678), kept(0, 0)) == ("1,234/5,678", "5,678", "0")


def test_bit_widths_are_listed():
    assert (bits_list((4, 32)), bits_list(())) == ("4, 32", "-")
