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
        ("", "names must be a list of 2 to 255 different names; received None."),
        ('names = ["a", "a"]', "names must be a list of 2 to 255 different names; received ['a', 'a']."),
        (NAMES + "palete = 1", "has the keys names, palette and ignore; received 'palete'; nearest: 'palette'."),
        (NAMES + "palette = [[1, 2, 3]]", "palette must be 3 colours [red, green, blue]; received [[1, 2, 3]]."),
        (NAMES + "ignore = 2", "ignore must be an id from 3 to 255, past those of the classes; received 2."),
        (NAMES + "ignore = 256", "ignore must be an id from 3 to 255, past those of the classes; received 256."),
    ],
)
def test_a_mistake_is_named(tmp_path, text, sentence):
    assert message(tmp_path, text).startswith(sentence)
