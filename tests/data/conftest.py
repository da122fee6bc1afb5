import numpy as np
import pytest
from PIL import Image

CLASSES = 'names = ["road", "sky", "car"]\npalette = [[128, 64, 128], [70, 130, 180], [0, 0, 142]]\nignore = 9\n'


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


def noise(number, *shape, most=256):
    return np.random.default_rng(number).integers(0, most, shape)


@pytest.fixture(autouse=True)
def no_default_root(monkeypatch, tmp_path):
    monkeypatch.delenv("QPRUNE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scenes(tmp_path):
    """A folder of scenes: 7 train, 2 val, 3 test of 6x10 pixels, with labels 0 .. 2 and 9 for void."""
    root = tmp_path / "scenes"
    for split, count in (("train", 7), ("val", 2), ("test", 3)):
        for i in range(count):
            write(root / split / "images" / f"{i}.png", noise(i, 6, 10, 3))
            labels = noise(i, 6, 10, most=4)
            write(root / split / "labels" / f"{i}.png", np.where(labels == 3, 9, labels))
    (root / "classes.toml").write_text(CLASSES)
    return root


@pytest.fixture
def two_kinds(tmp_path):
    """Folders trainA, trainB, testA, testB: 5, 5, 3, 3 images of 6x10 pixels; A is grey i, B is grey 100 + i."""
    root = tmp_path / "kinds"
    for split, count in (("train", 5), ("test", 3)):
        for i in range(count):
            write(root / f"{split}A" / f"{i}.png", np.full((6, 10, 3), i))
            write(root / f"{split}B" / f"{i}.png", np.full((6, 10, 3), 100 + i))
    return root
