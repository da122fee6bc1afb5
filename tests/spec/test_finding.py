"""Specs are found by name, by a part of one, and by the name that the published experiment has."""

import pytest

from qprune.errors import SpecError
from qprune.spec import find_spec, list_specs, read_spec, spec_tree


def found(name):
    return find_spec(name).relative_to(find_spec(name).parents[2]).as_posix()


@pytest.fixture
def shelf(complete):
    """Four specs: two networks, one published pair of equal last names."""
    complete("specs/base/shared.toml", 'about = "shared"\n')
    complete("specs/big/tiny_w4a4.toml", 'about = "big and small"\npublished = true\naka = "paper_wa4"\n')
    complete("specs/small/tiny_w4a4.toml")
    complete("specs/small/first.toml")
    complete("specs/small/first_half.toml")


def test_names_match_whole_components_from_the_right(shelf):
    assert found("small/tiny_w4a4") == "specs/small/tiny_w4a4.toml"
    assert found("first") == "specs/small/first.toml"


def test_the_published_name_matches_too(shelf):
    assert found("paper_wa4") == found("big/paper_wa4") == "specs/big/tiny_w4a4.toml"


def test_a_part_of_a_name_matches_last(shelf):
    assert found("irst_h") == "specs/small/first_half.toml"


def test_among_several_the_published_one_wins(shelf):
    assert found("tiny_w4a4") == "specs/big/tiny_w4a4.toml"


def test_several_without_a_published_one_are_listed(told, shelf):
    assert told("irst") == ['"irst" fits 2 specs: "small/first" and "small/first_half". Write more of the name.']


def test_several_published_ones_are_listed_with_the_others(complete, told, shelf):
    complete("specs/wide/tiny_w4a4.toml", "published = true\n")
    (line,) = told("tiny_w4a4")
    assert '"big/tiny_w4a4"' in line
    assert '"small/tiny_w4a4"' in line
    assert '"wide/tiny_w4a4"' in line


def test_a_name_that_four_shipped_families_have_lists_the_four(told):
    assert told("unet/a75_w4a4") == [
        '"unet/a75_w4a4" fits 4 specs: "camvid/unet/a75_w4a4", "cityscapes/unet/a75_w4a4", "citysgan/unet/a75_w4a4" '
        'and "streets/unet/a75_w4a4". Write more of the name.'
    ]


def test_a_name_that_dozens_have_lists_twelve_of_them(told):
    (line,) = told("a75_")
    assert line.count('"') == 2 * (1 + 12)
    assert line.endswith(" more. Write more of the name.")


@pytest.mark.parametrize("name", ["a75_w4a4", "a75_wa4_t_st"])
@pytest.mark.parametrize("net", ["cifar100/densenet121", "densenet121", "cityscapes/unet", "citysgan/resnet"])
def test_shipped_specs_are_found_by_their_own_and_their_published_name(net, name):
    assert found(f"{net}/{name}").endswith(f"{net}/a75_w4a4.toml")


def test_an_unknown_name_names_the_nearest(told, shelf):
    assert told("small/frst") == ['No spec is named "small/frst"; nearest spec: "small/first".']
    assert told("qqqqqq") == ['No spec is named "qqqqqq"; `qprune list` shows the specs.']


def test_a_full_name_wins_over_a_longer_one(complete, shelf):
    complete("specs/more/small/first.toml")
    assert found("small/first") == "specs/small/first.toml"


def test_the_list_has_names_and_abouts_and_leaves_base_out(shelf):
    mine = [spec for spec in list_specs() if spec.name.startswith(("big", "small", "base"))]
    assert [tuple(spec[:3]) for spec in mine] == [
        ("big/tiny_w4a4", "paper_wa4", "big and small"),
        ("small/first", None, ""),
        ("small/first_half", None, ""),
        ("small/tiny_w4a4", None, ""),
    ]
    assert mine[0].path.name == "tiny_w4a4.toml"


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


# the tree


def test_the_tree_indents_folders_and_gives_each_spec_a_line(complete, shelf):
    complete("specs/big/tiny_w8a8.toml", 'about = "the same in eight"\naka = "tiny_w8a8"\n')
    assert spec_tree("big/").splitlines() == [
        "big",
        "  tiny_w4a4  big and small [paper_wa4]",
        "  tiny_w8a8  the same in eight",
    ]


def test_the_tree_names_each_folder_once(complete):
    for name in ("aa/bbb/x_one", "aa/bbb/x_two", "aa/cc/x_one", "x_top"):
        complete(f"specs/{name}.toml")
    assert spec_tree("x_").splitlines() == ["aa", "  bbb", "    x_one", "    x_two", "  cc", "    x_one", "x_top"]


def test_the_tree_shows_a_part_by_either_name(shelf):
    assert spec_tree("paper_wa") == spec_tree("big/tiny")
    assert spec_tree("paper_wa").startswith("big\n")


def test_the_tree_has_every_spec_and_fits_110_columns():
    lines = spec_tree().splitlines()
    assert len([line for line in lines if "  " in line.lstrip()]) == len(list_specs())
    assert max(map(len, lines)) <= 110


def test_a_part_that_no_spec_has_names_the_nearest_word(shelf):
    with pytest.raises(SpecError) as error:
        spec_tree("citiscapes")
    assert str(error.value) == 'No spec has "citiscapes" in its name; nearest: "cityscapes".'
