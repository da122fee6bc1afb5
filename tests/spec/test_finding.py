"""Specs are found by name, by a part of one, and by the name that the published experiment has."""

import pytest

from qprune.errors import SpecError
from qprune.spec import find_spec, list_specs, read_spec


def found(name):
    return find_spec(name).relative_to(find_spec(name).parents[2]).as_posix()


@pytest.fixture
def shelf(complete):
    """Four specs: two networks, one published pair of equal last names."""
    complete("specs/base/shared.toml", 'about = "shared"\n')
    complete("specs/big/a75_w4a4.toml", 'about = "big and small"\npublished = true\naka = "a75_wa4_t_st"\n')
    complete("specs/small/a75_w4a4.toml")
    complete("specs/small/first.toml")
    complete("specs/small/first_half.toml")


def test_names_match_whole_components_from_the_right(shelf):
    assert found("small/a75_w4a4") == "specs/small/a75_w4a4.toml"
    assert found("first") == "specs/small/first.toml"


def test_the_published_name_matches_too(shelf):
    assert found("a75_wa4_t_st") == found("big/a75_wa4_t_st") == "specs/big/a75_w4a4.toml"


def test_a_part_of_a_name_matches_last(shelf):
    assert found("irst_h") == "specs/small/first_half.toml"


def test_among_several_the_published_one_wins(shelf):
    assert found("a75_w4a4") == "specs/big/a75_w4a4.toml"


def test_several_without_a_published_one_are_listed(told, shelf):
    assert told("irst") == ['"irst" fits 2 specs: "small/first" and "small/first_half". Write more of the name.']


def test_an_unknown_name_names_the_nearest(told, shelf):
    assert told("small/frst") == ['No spec is named "small/frst"; nearest spec: "small/first".']
    assert told("qqqqqq") == ['No spec is named "qqqqqq"; `qprune list` shows the specs.']


def test_a_full_name_wins_over_a_longer_one(complete, shelf):
    complete("specs/more/small/first.toml")
    assert found("small/first") == "specs/small/first.toml"


def test_the_list_has_names_and_abouts_and_leaves_base_out(shelf):
    mine = [spec for spec in list_specs() if spec.name.startswith(("big", "small", "base"))]
    assert [tuple(spec[:3]) for spec in mine] == [
        ("big/a75_w4a4", "a75_wa4_t_st", "big and small"),
        ("small/a75_w4a4", None, ""),
        ("small/first", None, ""),
        ("small/first_half", None, ""),
    ]
    assert mine[0].path.name == "a75_w4a4.toml"


def test_a_broken_file_is_listed_and_breaks_nothing(write, shelf):
    write("specs/small/broken.toml", b"\xff")
    write("specs/small/odd.toml", "about = 3\naka = 3\n")
    listed = {spec.name: spec.about for spec in list_specs()}
    assert listed["small/broken"] == listed["small/odd"] == ""


def test_installed_specs_are_found_from_any_folder(shelf):
    assert read_spec("digits/baseline").name == "digits/baseline"


def test_a_spec_of_the_current_folder_hides_the_installed_one(complete, shelf):
    path = complete("specs/digits/baseline.toml")
    assert find_spec("digits/baseline").samefile(path)


def test_no_name_is_no_spec(shelf):
    with pytest.raises(SpecError, match="No spec is named"):
        find_spec("")
