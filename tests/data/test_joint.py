import pytest
import torch

from qprune.data.joint import build_joint_augment
from qprune.errors import DataError

LABELS = torch.arange(6 * 10, dtype=torch.uint8).view(6, 10) % 7
IMAGE = (LABELS * 30).expand(3, -1, -1).contiguous()
BLANKS = [(torch.zeros_like(IMAGE), torch.zeros_like(LABELS))]
TABLES = [
    {"name": "RandomTranslate", "pixels": [3, 2]},
    {"name": "RandomHorizontalFlip"},
    {"name": "RandomVerticalFlip"},
    {"name": "RandomCrop", "size": [6, 10], "padding": 1},
    {"name": "RandomRotation", "degrees": 30, "interpolation": "bilinear"},
    {"name": "RandomPerspective", "p": 1.0},
]


def message(tables, blanks=BLANKS, fixed=True):
    with pytest.raises(DataError) as caught:
        build_joint_augment(tables, blanks, fixed)
    return str(caught.value)


def test_no_tables_are_no_augmentation():
    assert build_joint_augment((), BLANKS) is None


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table["name"])
def test_labels_move_with_the_image_and_are_never_mixed(table):
    augment = build_joint_augment([table | {"interpolation": "nearest"} if "degrees" in table else table], BLANKS)
    for _ in range(20):
        image, labels = augment(IMAGE, LABELS)
        assert set(labels.unique().tolist()) <= {*range(7), 255}
        inside = labels != 255
        if table["name"] != "RandomPerspective":  # interpolates images
            assert torch.equal(image[0][inside], labels[inside] * 30)


@pytest.mark.parametrize("table", TABLES[3:], ids=lambda table: table["name"])
def test_what_moves_in_is_void_and_black(table):
    augment = build_joint_augment([table], BLANKS)
    drawn = [augment(IMAGE + 9, LABELS) for _ in range(20)]
    assert any((labels == 255).any() for _, labels in drawn)
    assert any((image[0] == 0).any() for image, _ in drawn)


def test_a_fill_is_that_of_the_image():
    augment = build_joint_augment([{"name": "Pad", "padding": 1, "fill": 200}], BLANKS, fixed=False)
    image, labels = augment(IMAGE, LABELS)
    assert (image[0, 0, 0], labels[0, 0]) == (200, 255)


def test_colours_change_images_alone():
    augment = build_joint_augment([{"name": "RandomInvert", "p": 1.0}], BLANKS)
    image, labels = augment(IMAGE, LABELS)
    assert torch.equal(image, 255 - IMAGE)
    assert torch.equal(labels, LABELS)


def test_plain_tensors_come_back():
    augment = build_joint_augment([{"name": "RandomHorizontalFlip"}], BLANKS)
    assert {type(picture) for picture in (*augment(IMAGE, LABELS), *augment(LABELS))} == {torch.Tensor}


def test_a_resize_and_a_crop_work_where_the_size_is_set():
    tables = [{"name": "Resize", "size": [9, 15]}, {"name": "RandomCrop", "size": [4, 7]}]
    image, labels = build_joint_augment(tables, BLANKS, fixed=False)(IMAGE, LABELS)
    assert (image.shape, labels.shape) == ((3, 4, 7), (4, 7))


def test_another_shape_is_refused_where_no_size_is_set():
    assert message([{"name": "RandomCrop", "size": [4, 7]}]) == (
        "data.augment must keep shape (3, 6, 10) where data.size is not set, as evaluation does; it made (3, 4, 7)."
    )


def test_what_cannot_take_labels_is_refused():
    assert message([{"name": "AugMix"}]).startswith(
        "data.augment[0]: AugMix fails on pictures of shape (3, 6, 10) and (6, 10): "
    )


def test_a_transform_that_drops_channels_is_refused():
    assert message([{"name": "Grayscale"}]) == (
        "data.augment[0]: Grayscale must keep channels and type uint8; it made (1, 6, 10)."
    )


def test_mistakes_are_those_of_single_images():
    assert message([{"name": "RandomGama", "gamma": [1, 2]}]).endswith("nearest: 'RandomGamma'.")
    assert message([{"name": "RandomGamma", "gama": 1}]) == (
        "data.augment[0].gama: must be an argument of RandomGamma; nearest: 'gamma'."
    )


def test_building_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    build_joint_augment(TABLES, BLANKS)
    assert torch.equal(torch.get_rng_state(), state)
