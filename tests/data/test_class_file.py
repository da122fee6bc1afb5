import os

import pytest

from qprune.data.class_file import read_class_file, usual_palette
from qprune.errors import DataError

NAMES = 'names = ["road", "sky", "car"]\n'


def message(tmp_path, text):
    (tmp_path / "classes.toml").write_text(text)
    with pytest.raises(DataError) as caught:
        read_class_file(tmp_path)
    return str(caught.value).removeprefix(f"{tmp_path / 'classes.toml'}: ")


def test_names_are_enough(tmp_path):
    (tmp_path / "classes.toml").write_text(NAMES)
    classes = read_class_file(tmp_path)
    assert classes.names == ("road", "sky", "car")
    assert classes.palette == usual_palette(3)
    assert classes.labels == {0: 0, 1: 1, 2: 2}


def test_colours_and_void_are_read(tmp_path):
    (tmp_path / "classes.toml").write_text(NAMES + "palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\nignore = 11\n")
    classes = read_class_file(tmp_path)
    assert classes.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert classes.labels == {0: 0, 1: 1, 2: 2, 11: 255}


def test_usual_colours_all_differ_and_none_is_black():
    assert len({(0, 0, 0), *usual_palette(254)}) == 255
    assert usual_palette(15)[14] == (192, 128, 128)  # person in PASCAL VOC


def test_a_missing_file_says_what_belongs_into_it(tmp_path):
    with pytest.raises(DataError) as caught:
        read_class_file(tmp_path)
    assert str(caught.value) == (
        f'{tmp_path / "classes.toml"}: must name the classes of data.name = "segmentation", '
        'as names = ["road", "sky"]; there is none.'
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("names = [", "must be a TOML file; "),
        ("", "names must be a list of 2 to 255 different names; received nothing."),
        ('names = ["a", "a"]', 'names must be a list of 2 to 255 different names; received ["a", "a"].'),
        (NAMES + "palete = 1", "has the keys names, palette and ignore; received \"palete\"; nearest: 'palette'."),
        (NAMES + "palette = [[1, 2, 3]]", "palette must be 3 colours [red, green, blue]; received [[1, 2, 3]]."),
        (NAMES + "ignore = 2", "ignore must be an id from 3 to 255, past those of the classes; received 2."),
        (NAMES + "ignore = 256", "ignore must be an id from 3 to 255, past those of the classes; received 256."),
    ],
)
def test_a_mistake_is_named(tmp_path, text, sentence):
    assert message(tmp_path, text).startswith(sentence)


def test_a_pipe_a_device_and_a_large_file_are_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "classes.toml"
    os.mkfifo(path)
    with pytest.raises(DataError) as caught:
        read_class_file(tmp_path)
    assert str(caught.value) == f"{path}: must be a TOML file; it is a named pipe, and only regular files are read."
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is a device, and only regular files are read"):
        read_class_file(tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(DataError, match="it is 1,048,577 bytes long, and at most 1,048,576 are read"):
        read_class_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = " + "[" * 5000, "must be a TOML file; it is nested too deep; a spec needs few levels."),
        ("x = " + "9" * 5000, "must be a TOML file; it is not TOML as qprune reads it: it holds a number of thousands"),
        (".".join("a" * 50_000) + " = 1", "must be a TOML file; it has a key of more than 20 parts, a.a.a.a.a.a.a.a.a"),
        (f'names = ["{"a" * 300}", 5]', 'names must be a list of 2 to 255 different names; received ["aaaa'),
        ('"\\u001b[2J" = 1', 'has the keys names, palette and ignore; received "\\u001b[2J".'),
    ],
)
def test_hostile_text_gets_one_short_sentence(tmp_path, text, sentence):
    told = message(tmp_path, text)
    assert told.startswith(sentence)
    assert len(told) < 200


def test_text_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "classes.toml").write_bytes(b"\xff")
    with pytest.raises(DataError, match="must be a TOML file, in UTF-8; received another text"):
        read_class_file(tmp_path)
