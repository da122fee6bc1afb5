from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qprune.data import load_data, read_inputs
from qprune.errors import DataError
from qprune.spec import DataSpec


@pytest.fixture
def save(tmp_path):
    """Write pixels, (height, width) or (height, width, 3), as an image file."""

    def write(pixels, name="image.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
        return path

    return write


def pixels(*shape):
    return np.random.default_rng(3).integers(0, 256, shape)


def test_files_are_stacked_and_normalized_by_the_data_set(save):
    first, second = pixels(32, 32, 3), pixels(32, 32, 3)[::-1]
    batch = read_inputs(DataSpec("cifar10"), [save(first, "a.png"), save(second, "b.png")], (3, 32, 32))
    assert (batch.dtype, batch.shape) == (torch.float32, (2, 3, 32, 32))
    expected = (second[:, :, 1] / 255 - 0.4822) / 0.2435
    torch.testing.assert_close(batch[1, 1], torch.tensor(expected.copy(), dtype=torch.float32))


def test_statistics_of_the_spec_come_first(save):
    spec = DataSpec("cifar10", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    batch = read_inputs(spec, [save(np.full((4, 6, 3), 255))], (3, 4, 6))
    torch.testing.assert_close(batch[0, :, 0, 0], torch.tensor([0.9 / 0.5, 0.8 / 0.6, 0.7 / 0.7]))


def test_grey_stays_the_same_grey(save):
    image = np.arange(256).reshape(16, 16)
    spec = DataSpec("digits", mean=(0.0,), std=(1.0,))
    torch.testing.assert_close(
        read_inputs(spec, [save(image)], (1, 16, 16))[0, 0] * 255, torch.tensor(image, dtype=torch.float32)
    )


def test_colours_turn_grey_by_their_brightness(save):
    image = np.zeros((8, 8, 3))
    image[:] = 200, 100, 50
    batch = read_inputs(DataSpec("digits", mean=(0.0,), std=(1.0,)), [save(image)], (1, 8, 8))
    torch.testing.assert_close(batch, torch.full((1, 1, 8, 8), (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255))


def test_a_folder_of_images_is_read_as_in_training(save, tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            save(pixels(11, 17, 3), f"{part}/{name}/0.png")
    spec = DataSpec("folder", root=str(tmp_path), size=8, validation=0.0)
    expected = torch.stack([load_data(spec).test[index][0] for index in (0, 1)])
    files = [tmp_path / "test/a/0.png", tmp_path / "test/b/0.png"]
    torch.testing.assert_close(read_inputs(spec, files, (3, 8, 8)), expected)


def test_the_data_need_not_be_here(save):
    spec = DataSpec("folder", root="gone", size=8)
    assert read_inputs(spec, [save(pixels(8, 8, 3))], (3, 8, 8)).shape == (1, 3, 8, 8)


def test_an_image_of_another_size_is_squeezed_where_the_network_is_not_square(save):
    batch = read_inputs(DataSpec("folder"), [save(np.full((11, 17, 3), 51))], (3, 4, 6))
    torch.testing.assert_close(batch, torch.full((1, 3, 4, 6), (0.2 - 0.5) / 0.5))


def test_scenes_keep_their_size(save):
    image = pixels(11, 17, 3)
    batch = read_inputs(DataSpec("cityscapes", size=(256, 512)), [save(image, "a.png"), save(image, "b.png")])
    assert batch.shape == (2, 3, 11, 17)
    torch.testing.assert_close(batch[1, 2], torch.tensor(image[:, :, 2] / 255, dtype=torch.float32))


def test_coloured_labels_are_read_as_in_training(save):
    batch = read_inputs(DataSpec("camvid", translate="BtoA"), [save(np.full((11, 17, 3), (128, 0, 255)))])
    torch.testing.assert_close(batch[0, :, 3, 5], torch.tensor([128 / 127.5 - 1, -1.0, 1.0]))


def test_images_of_several_sizes_are_read_one_by_one(save):
    files = [save(pixels(11, 17, 3), "a.png"), save(pixels(8, 9, 3), "b.png")]
    with pytest.raises(DataError) as caught:
        read_inputs(DataSpec("camvid"), files)
    assert str(caught.value) == (
        f"{files[1]}: images that are read together must have one size, 11x17 (height x width) as {files[0]}; "
        "received 8x9. Read them one by one."
    )
    assert read_inputs(DataSpec("camvid"), files, (3, 4, 6)).shape == (2, 3, 4, 6)


def test_what_cannot_be_read_is_named(save, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    for path, sentence in ((Path("gone.png"), "There is no image gone.png."), (text, "notes.txt")):
        with pytest.raises(DataError) as caught:
            read_inputs(DataSpec("cifar10"), [path], (3, 32, 32))
        assert sentence in str(caught.value)


def test_networks_of_other_channels_take_tensors(save):
    with pytest.raises(DataError, match="Image files have 1 or 3 channels; the network takes 4"):
        read_inputs(DataSpec("folder"), [save(pixels(8, 8, 3))], (4, 8, 8))
