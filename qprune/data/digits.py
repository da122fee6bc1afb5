"""The embedded data set: real handwritten digits, 8x8 (digits.md says whose)."""

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from qprune.data.source import Source


def digits_source() -> Source:
    """The 1,797 scans with their fixed split; the ink of 0 to 16 becomes grey levels of 0 to 255."""
    with files("qprune.data").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays}
    images = torch.from_numpy(np.round(stored["images"] * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    splits = {name: stored[name].astype(np.int64) for name in ("train", "val", "test")}

    def read(split: str, indices: np.ndarray) -> Tensor:
        return images[splits[split][indices]]

    labels = {name: stored["labels"][indices].astype(np.int64) for name, indices in splits.items()}
    return Source(classes=tuple("0123456789"), shape=(1, 8, 8), labels=labels, read=read)
