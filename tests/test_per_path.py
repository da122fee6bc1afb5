import pytest

from qprune.per_path import one_number, per_path, problems


def test_the_narrowest_pattern_that_matches_decides_whatever_the_order():
    entries = {"*": 1, "stage1.*": 2, "stage1.0.conv": 3, "stage?.1.*": 4}
    for order in (entries, dict(reversed(entries.items()))):
        table = per_path(order)
        assert [table.at(path) for path in ("stem", "stage1.0.act", "stage1.0.conv", "stage2.1.conv")] == [1, 2, 3, 4]


def test_of_two_patterns_that_only_overlap_none_decides():
    table = per_path({"stage1.*": 1, "*.conv": 2, "*": 3})
    assert table.deciding("stage1.conv") == ("stage1.*", "*.conv")
    with pytest.raises(ValueError, match="too many values"):
        table.at("stage1.conv")


def test_a_path_that_nothing_matches_has_no_number():
    assert per_path({"stage1.*": 1}).deciding("stem") == ()
    with pytest.raises(KeyError, match="stem"):
        per_path({"stage1.*": 1}).at("stem")


def test_tables_of_the_same_entries_are_equal_and_can_be_keys():
    one, other = per_path({"a": 1, "b": 2}), per_path({"b": 2, "a": 1})
    assert one == other
    assert len({one, other}) == 1
    assert one != per_path({"a": 2, "b": 1})
    assert list(other.to_table()) == ["b", "a"]


def test_what_is_no_table_stays_as_it_is():
    assert per_path(0.5) == 0.5
    assert per_path(None) is None
    assert per_path(per_path({"a": 1})) == per_path({"a": 1})


def test_a_single_layer_needs_one_number():
    with pytest.raises(ValueError, match=r"^bits is a table from patterns on module paths, which a rule of a spec"):
        one_number(per_path({"*": 4}), "bits")


def test_every_wrong_entry_is_told():
    told = list(problems({"a.*": 1.5, "b.*": 0.5, "c": {"d": 0.5}, "": 0.1}, lambda v: v < 1))
    assert told == [
        'received 1.5 for "a.*"',
        "received a table for c; a pattern with dots stands in quotes",
        'received 0.1 for ""',
    ]
