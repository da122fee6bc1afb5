"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) through torchvision."""

from pathlib import Path

import numpy as np
import torch

from qprune.data.info import NAMED
from qprune.data.source import Images, Source
from qprune.errors import DataError


def cifar_source(name: str, root: Path, download: bool = False) -> Source:
    """Read CIFAR-10 or CIFAR-100 into memory."""
    from torchvision import datasets

    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        parts = {split: reader(str(root), train=split == "train", download=download) for split in ("train", "test")}
    except (RuntimeError, OSError) as error:
        raise DataError(_not_there(name, root, reader.base_folder, error, download)) from error
    labels = {split: np.array(part.targets, np.int64) for split, part in parts.items()}

    def read(split: str, indices: np.ndarray) -> Images:
        return torch.from_numpy(parts[split].data[indices]).permute(0, 3, 1, 2).contiguous()

    return Source(classes=NAMED[name].classes, shape=NAMED[name].shape, labels=labels, read=read)


def _not_there(name: str, root: Path, folder: str, error: Exception, download: bool) -> str:
    if download:
        return (
            f"{name} could not be downloaded to {root.absolute()}: {error}. Check the network and the room there, or "
            "put the data there yourself and set data.download = false."
        )
    return (
        f"{name} must be on this machine; looked for {(root / folder).absolute()}. Set data.download = true, "
        "or data.root (or QPRUNE_DATA) to where it is, or to a folder with train/CLASS/NAME and test/CLASS/NAME."
    )
