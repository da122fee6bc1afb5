import pytest
import torch

from qprune.data import build_augment
from qprune.errors import DataError

CROP = {"name": "RandomCrop", "size": [5, 7], "padding": 2}
FLIP = {"name": "RandomHorizontalFlip"}


def message(tables, shape=(3, 5, 7)):
    with pytest.raises(DataError) as caught:
        build_augment(tables, shape)
    return str(caught.value)


def test_no_tables_are_no_augmentation():
    assert build_augment((), (3, 5, 7)) is None


def test_transforms_apply_in_their_order():
    augment = build_augment(
        [{"name": "RandomInvert", "p": 1.0}, {"name": "Pad", "padding": 0}, {**FLIP, "p": 1}], (1, 2, 3)
    )
    image = torch.tensor([[[1, 2, 3], [4, 5, 6]]], dtype=torch.uint8)
    assert torch.equal(augment(image)[0], 255 - image.flip(-1))


def test_enums_are_given_by_value():
    augment = build_augment(
        [
            {"name": "RandomRotation", "degrees": 15, "interpolation": "bilinear"},
            {"name": "AutoAugment", "policy": "cifar10"},
        ]
    )
    assert augment.transforms[1].policy.value == "cifar10"


def test_our_own_transforms_take_single_images_too():
    augment = build_augment([{"name": "RandomTranslate", "pixels": [2, 1]}, {"name": "RandomGamma", "gamma": [1, 1.5]}])
    assert augment(torch.full((3, 32, 32), 255, dtype=torch.uint8))[0].tolist() == [[[255] * 32] * 32] * 3


def test_building_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    build_augment([CROP, FLIP], (3, 5, 7))
    assert torch.equal(torch.get_rng_state(), state)


def test_unknown_name_gives_the_nearest():
    assert message([FLIP, {"name": "RandomCorp", "size": 5}]) == (
        "data.augment[1].name: must be a class of torchvision.transforms.v2; "
        "received 'RandomCorp'; nearest: 'RandomCrop'."
    )


def test_hopeless_name_lists_what_is_known():
    assert "received 'zzz'; known are AugMix, AutoAugment, " in message([{"name": "zzz"}])


def test_missing_name_is_named():
    assert "data.augment[0].name: must be a class" in message([{"size": 5}])


def test_unknown_argument_gives_the_nearest():
    assert message([{**CROP, "paddding": 1}]) == (
        "data.augment[0].paddding: must be an argument of RandomCrop; nearest: 'padding'."
    )


def test_hopeless_argument_lists_what_there_is():
    assert (
        message([{**FLIP, "zzz": 1}]) == "data.augment[0].zzz: must be an argument of RandomHorizontalFlip; it takes p."
    )


def test_missing_argument_is_named():
    assert message([{"name": "RandomCrop"}]) == "data.augment[0]: RandomCrop needs 'size'."


def test_a_value_that_torchvision_refuses_is_shown_with_its_reason():
    text = message([{**FLIP, "p": 1.5}])
    assert text.startswith("data.augment[0]: RandomHorizontalFlip refuses {'p': 1.5}: ")
    assert "[0.0, 1.0]" in text


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"name": "RandomErasing", "p": "x"}, "RandomErasing refuses {'p': 'x'}: a value is of the wrong kind"),
        ({**FLIP, "p": [1]}, "RandomHorizontalFlip refuses {'p': [1]}: a value is of the wrong kind"),
        (
            {"name": "RandomCrop", "size": "a"},
            "RandomCrop fails on images of shape (3, 5, 7): a value is of the wrong kind",
        ),
        (
            {"name": "RandomSolarize", "threshold": "a"},
            "RandomSolarize fails on images of shape (3, 5, 7): a value is of",
        ),
    ],
)
def test_python_s_own_words_are_not_shown_where_torchvision_only_stumbles(table, sentence):
    assert message([table]).startswith(f"data.augment[0]: {sentence}")


def test_an_unknown_enum_value_is_refused():
    assert "refuses {'policy': 'cifar'}: 'cifar' is not a valid AutoAugmentPolicy" in message(
        [{"name": "AutoAugment", "policy": "cifar"}]
    )


def test_a_transform_that_changes_the_shape_is_refused():
    assert message([{"name": "RandomCrop", "size": 4}]) == (
        "data.augment[0]: RandomCrop must keep shape (3, 5, 7) and type uint8, as evaluation does; "
        "it made shape (3, 4, 4) and type uint8."
    )


def test_a_transform_that_fails_on_such_images_is_refused():
    assert message([{"name": "RandomCrop", "size": 9}]).startswith(
        "data.augment[0]: RandomCrop fails on images of shape (3, 5, 7): Required crop size"
    )


@pytest.mark.parametrize("name", ["Normalize", "MixUp", "Compose", "ToDtype"])
def test_conversions_batch_transforms_and_containers_are_refused(name):
    text = message([{"name": name}])
    assert text.startswith(
        f"data.augment[0].name: '{name}' cannot augment single images from a table; use one of AugMix"
    )


def test_of_images_as_they_are_stored_only_channels_must_stay():
    crop = {"name": "RandomResizedCrop", "size": 4}
    (made,) = build_augment([crop, FLIP], (3, 5, 7), fixed=False)(torch.zeros(3, 9, 6, dtype=torch.uint8))
    assert made.shape == (3, 4, 4)
    with pytest.raises(DataError) as caught:
        build_augment([crop, {"name": "Grayscale"}], (3, 5, 7), fixed=False)
    assert str(caught.value) == (
        "data.augment[1]: Grayscale must keep channels and type uint8, as evaluation does; it made shape (1, 4, 4) and "
        "type uint8."
    )
