"""A file that cannot be read as TOML is told in one sentence."""

import sys
from pathlib import Path

import pytest


def test_a_missing_file_names_its_nearest_neighbour(told, complete):
    complete("specs/mine.toml")
    assert told("specs/mne.toml") == ['specs/mne.toml does not exist; nearest: "mine.toml".']


def test_a_missing_file_without_neighbours_names_the_nearest_spec(told, complete):
    complete("specs/net/a75_layers.toml")
    assert told("other/a75_layer.toml") == ['other/a75_layer.toml does not exist; nearest spec: "net/a75_layers".']


def test_the_root_and_no_name_are_folders(told, write):
    assert told(Path("/"))[0].startswith("/ is a folder, and a spec is a file; ")
    assert told("")[0].startswith(". is a folder, and a spec is a file; ")


def test_a_folder_is_told(told, complete):
    complete("specs/net/mine.toml")
    assert told("specs/net") == ["specs/net is a folder, and a spec is a file; `qprune list` shows the specs."]
    assert told(Path("specs")) == ["specs is a folder, and a spec is a file; `qprune list` shows the specs."]


def test_an_empty_file_is_told(told, write, complete):
    complete("specs/mine.toml")
    write("min.toml", b" \n\n")
    assert told("min.toml") == ['min.toml is empty; nearest spec: "mine".']


def test_a_file_that_is_not_utf8_is_told(told, write):
    write("zzzzzz.toml", b"format = 1\nabout = '\xff'\n")
    assert told("zzzzzz.toml") == [
        "zzzzzz.toml is not UTF-8 text (byte 0xff at position 20); `qprune list` shows the specs."
    ]


def test_a_file_that_is_not_toml_is_told_with_its_line(told, write):
    write("zzzzzz.toml", "seed = \n")
    (line,) = told("zzzzzz.toml")
    assert line.startswith("zzzzzz.toml is not TOML: ")
    assert "line 2" in line


def test_toml_that_ends_too_early_is_told_with_its_line(told, write):
    write("zzzzzz.toml", "seed = 3\nprune = [")
    (line,) = told("zzzzzz.toml")
    assert "at line 3, the end of the file" in line


@pytest.mark.parametrize("opening", ["[", "{a = "])
def test_a_file_nested_without_end_is_told(told, write, opening):
    write("zzzzzz.toml", f"x = {opening * 5000}")
    (line,) = told("zzzzzz.toml")
    assert line.startswith("zzzzzz.toml is nested too deep; a spec needs few levels")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights")
def test_an_unreadable_file_is_told(told, write):
    write("loop/x.toml", "")
    Path("zzzzzz.toml").symlink_to("zzzzzz.toml")
    (line,) = told(Path("zzzzzz.toml"))
    assert line.startswith("zzzzzz.toml cannot be read (")
