import hashlib
from importlib.resources import files

import numpy as np
import torch

from qprune.data import describe, load_data
from qprune.data.seeds import SPLIT, stratified_order
from qprune.spec import DataSpec

FILE = files("qprune.data").joinpath("digits.npz")


def stored():
    with FILE.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


def test_file_never_changes():
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == (
        "0953854fdd4819f4e62a9ec9b6af756118ad0de750cffd913857d5372c27fde8"
    )


def test_attribution_lies_beside_the_file():
    text = files("qprune.data").joinpath("digits.md").read_text()
    assert "CC BY 4.0" in text
    assert "Alpaydin" in text


def test_stored_split_is_the_stratified_order_that_the_note_names():
    arrays = stored()
    order = stratified_order(arrays["labels"], SPLIT)
    assert arrays["test"].tolist() == sorted(order[:400].tolist())
    assert arrays["val"].tolist() == sorted(order[400:600].tolist())
    assert arrays["train"].tolist() == sorted(order[600:].tolist())


def test_every_part_holds_every_digit_in_proportion():
    arrays = stored()
    for name, size in (("train", 1197), ("val", 200), ("test", 400)):
        counts = np.bincount(arrays["labels"][arrays[name]])
        expected = np.bincount(arrays["labels"]) * size / 1797
        assert abs(counts - expected).max() <= 2


def test_images_are_ink_over_sixteen_normalized():
    splits, arrays = load_data(DataSpec(name="digits")), stored()
    image, label = splits.test[3]
    ink = torch.from_numpy(arrays["images"][arrays["test"][3]]).float() / 16
    torch.testing.assert_close(image * 0.3756 + 0.3051, ink.unsqueeze(0), atol=0.5 / 255 + 1e-6, rtol=0)
    assert label == arrays["labels"][arrays["test"][3]]


def test_stated_mean_and_std_are_those_of_the_training_images():
    train = load_data(DataSpec(name="digits")).train
    pixels = torch.stack([train[i][0] for i in range(len(train))])
    assert abs(float(pixels.mean())) < 1e-3
    assert abs(float(pixels.std()) - 1) < 1e-3


def test_digits_keep_their_own_validation_split():
    splits = load_data(DataSpec(name="digits", validation=0.5))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1197, 200, 400)


def test_describe_says_what_loading_gives():
    spec = DataSpec(name="digits", train_images=300)
    splits = load_data(spec)
    assert describe(spec) == splits.info
    assert splits.info.sizes == {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)}
    assert splits.info.shape == splits.train[0][0].shape == (1, 8, 8)
    assert splits.info.classes == tuple("0123456789")


def test_size_resizes_digits_too():
    splits = load_data(DataSpec(name="digits", size=11))
    assert splits.train[0][0].shape == splits.info.shape == (1, 11, 11)
    splits = load_data(DataSpec(name="digits", size=[9, 12]))
    assert splits.train[0][0].shape == splits.info.shape == (1, 9, 12)
