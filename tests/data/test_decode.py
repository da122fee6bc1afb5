import os
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from qprune.data.decode import ImageFiles, read_image, read_images, read_size
from qprune.errors import DataError

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3) * 2


def save(image, path, **options):
    image.save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path):
    path = save(Image.fromarray(PIXELS), tmp_path / "a.png")
    assert (read_image(path) == PIXELS).all()
    assert read_size(path) == (5, 7)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(tmp_path, mode):
    grey = Image.fromarray(PIXELS).convert(mode)
    image = read_image(save(grey, tmp_path / "a.png"))
    assert (image == np.asarray(grey.convert("L"))[..., None]).all()
    assert image.shape == (5, 7, 3)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path):
    values = (np.arange(35, dtype=np.uint16) * 7 * 257).reshape(5, 7)
    image = read_image(save(Image.fromarray(values), tmp_path / "a.png"))
    assert (image == (values // 257)[..., None]).all()


def test_palettes_are_looked_up(tmp_path):
    palette = Image.fromarray(PIXELS).quantize(4)
    assert (read_image(save(palette, tmp_path / "a.png")) == np.asarray(palette.convert("RGB"))).all()


def test_transparent_pixels_are_laid_over_black(tmp_path):
    alpha = np.full((5, 7, 1), 255, np.uint8)
    alpha[2, 3] = 0
    image = read_image(save(Image.fromarray(np.concatenate([PIXELS, alpha], 2)), tmp_path / "a.png"))
    assert (image == np.where(alpha == 0, 0, PIXELS)).all()


def test_images_are_turned_as_their_exif_tag_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    path = save(Image.fromarray(PIXELS), tmp_path / "a.png", exif=exif)
    assert (read_image(path) == np.rot90(PIXELS, -1)).all()
    assert read_size(path) == (7, 5)


def test_size_squeezes_to_a_square_or_to_height_and_width(tmp_path):
    path = save(Image.fromarray(PIXELS), tmp_path / "a.png")
    assert read_image(path, size=4).shape == (4, 4, 3)
    assert read_image(path, size=(4, 6)).shape == (4, 6, 3)


def test_many_files_become_one_tensor(tmp_path):
    paths = [save(Image.fromarray(PIXELS + i), tmp_path / f"{i}.png") for i in range(3)]
    images = read_images(paths, 5, 7)
    assert images.shape == (3, 3, 5, 7)
    assert torch.equal(images[2], torch.from_numpy(PIXELS + 2).permute(2, 0, 1))
    assert torch.equal(ImageFiles(paths, 5, 7)[[2, 0]], images[[2, 0]])


def test_a_truncated_file_is_named(tmp_path):
    path = save(Image.fromarray(np.tile(PIXELS, (20, 20, 1))), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: must be a whole, readable image; image file is truncated")
    assert str(caught.value).endswith("Replace or remove the file.")


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(DataError, match="must be a whole, readable image; it is none of BMP, GIF"):
            read(path)


def test_float_pixels_are_refused(tmp_path):
    path = save(Image.fromarray(np.zeros((5, 7), np.float32)), tmp_path / "a.tiff")
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: must have 8 or 16 bits per channel; received mode 'F'. Convert it to 8 bits."


def test_animations_are_refused(tmp_path):
    frames = [Image.fromarray(PIXELS + 40 * i) for i in range(3)]
    path = save(frames[0], tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: must be a single image; received 3 frames. Save one of them."


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, kind in (("pipe.png", "a named pipe"), ("zero.png", "a device")):
        for read in (read_image, read_size):
            with pytest.raises(DataError) as caught:
                read(tmp_path / name)
            assert str(caught.value) == (
                f"{tmp_path / name}: must be a whole, readable image; it is {kind}, and only regular files are read. "
                "Replace or remove the file."
            )


def test_a_file_of_more_than_a_gigabyte_is_refused(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(DataError, match="it is 1,073,741,825 bytes long, and at most 1,073,741,824 are read"):
        read_image(tmp_path / "large.png")


def test_more_pixels_than_pillow_allows_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = save(Image.fromarray(PIXELS), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 17)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path}: has more than 34 pixels, and no more are decoded. Make it smaller, or raise "
        "PIL.Image.MAX_IMAGE_PIXELS."
    )


def test_a_postscript_file_runs_no_interpreter(tmp_path, monkeypatch):
    """Pillow knows it by its content, and has Ghostscript draw it."""
    path, mark = tmp_path / "a.png", tmp_path / "executed"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 7\n%%EndComments\nshowpage\n%%EOF\n")
    interpreter = tmp_path / "gs"
    interpreter.write_text(f"#!/bin/sh\ntouch {mark}\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    with pytest.raises(DataError, match="it is none of BMP, GIF"):
        read_image(path)
    assert not mark.exists()
    with suppress(OSError), Image.open(path) as image:
        image.load()
    assert mark.exists()  # it would have been
