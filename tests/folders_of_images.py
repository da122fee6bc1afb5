"""Folders of images as people have them."""

from pathlib import Path

import numpy as np
from PIL import Image

from qprune.data.digits import digits_source

DRAWN = np.random.default_rng(5)


def noise(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DRAWN.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)


def photos(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 30)) -> Path:
    for name, count in counts.items():
        for number in range(count):
            noise(root / "train" / name / f"{number}.png", size[0] + number, size[1])
        noise(root / "test" / name / "0.png", *size)
    return root


def scenes(root: Path, count: int = 12) -> Path:
    for split in ("train", "test"):
        for number in range(count):
            noise(root / split / "images" / f"{number}.png", 40, 70)
            labels = root / split / "labels" / f"{number}.png"
            labels.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(DRAWN.integers(0, 3, (40, 70), dtype=np.uint8)).save(labels)
    (root / "classes.toml").write_text('names = ["road", "sky", "tree"]\n')
    return root


def digits(root: Path) -> Path:
    """The embedded digits, as a PNG each."""
    source = digits_source()
    for split, labels in source.labels.items():
        images = source.read(split, np.arange(len(labels)))[list(range(len(labels)))]
        for number, (label, image) in enumerate(zip(labels, images, strict=True)):
            path = root / split / f"digit_{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(path)
    return root
