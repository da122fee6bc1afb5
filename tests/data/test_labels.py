import numpy as np
import pytest
from PIL import Image

from qprune.data.labels import LabelIds, read_label_size, read_labels
from qprune.errors import DataError

IDS = LabelIds({0: 0, 1: 1, 2: 2, 9: 255})
NUMBERS = np.array([[0, 1, 2], [9, 255, 1]], np.uint8)
LABELS = [[0, 1, 2], [255, 255, 1]]


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def message(path, read=lambda path: read_labels(path, IDS)):
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


def test_ids_become_classes_and_void(tmp_path):
    path = save(tmp_path / "a.png", NUMBERS)
    assert read_labels(path, IDS).tolist() == LABELS
    assert read_label_size(path) == (2, 3)


def test_the_numbers_of_a_palette_image_count_not_its_colours(tmp_path):
    image = Image.fromarray(NUMBERS).convert("P")
    image.putpalette([7 * i % 256 for i in range(768)])
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
    assert read_labels(tmp_path / "a.png", IDS).tolist() == LABELS


def test_one_bit_is_two_classes(tmp_path):
    path = save(tmp_path / "a.png", NUMBERS > 1)
    assert read_labels(path, IDS).tolist() == [[0, 0, 1], [1, 1, 0]]


def test_ids_that_do_not_count_are_void_where_that_is_allowed(tmp_path):
    ids = LabelIds({2: 0, 1: 1}, strict=False)
    assert read_labels(save(tmp_path / "a.png", NUMBERS), ids).tolist() == [[255, 1, 0], [255, 255, 1]]


def test_an_id_outside_the_classes_is_named(tmp_path):
    path = save(tmp_path / "a.png", NUMBERS + 1)
    assert message(path) == f"{path}: labels must be in 0 .. 2, or 9 or 255 for void; received 3."


@pytest.mark.parametrize(
    ("pixels", "mode"), [(np.zeros((2, 3, 3), np.uint8), "RGB"), (np.zeros((2, 3), np.uint16), "I;16")]
)
def test_colours_and_wide_numbers_are_refused(tmp_path, pixels, mode):
    path = save(tmp_path / "a.png", pixels)
    for read in (lambda path: read_labels(path, IDS), read_label_size):
        assert message(path, read) == (
            f"{path}: labels must be 8-bit class ids, grey or palette; received mode '{mode}'. "
            "Write each class as its id."
        )


def test_a_truncated_file_is_named(tmp_path):
    path = save(tmp_path / "a.png", np.arange(9000, dtype=np.uint8).reshape(90, 100) % 3)
    path.write_bytes(path.read_bytes()[:-60])
    assert message(path).startswith(f"{path}: must be a whole, readable image; ")
