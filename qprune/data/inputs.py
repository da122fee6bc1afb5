"""Image files as a trained network wants to see them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from qprune.data.decode import read_image
from qprune.data.splits import describe
from qprune.errors import DataError
from qprune.spec import DataSpec


def read_inputs(spec: DataSpec, paths: Sequence[Path], shape: Sequence[int]) -> Tensor:
    """Read image files for a network: of its size, with its channels, normalized as in training.

    Images of another size are squeezed to it; for a network of one channel they are turned grey.

    Args:
        spec: the ``[data]`` that the network was trained on, for its mean and standard deviation.
        paths: the files.
        shape: ``(C, H, W)`` of the network's images.

    Returns:
        float32 ``(len(paths), C, H, W)``.

    Raises:
        DataError: if a file is missing or no image.

    Example:
        >>> read_inputs(DataSpec(name="cifar10"), [Path("cat.png")], (3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """
    from torchvision.transforms.v2 import functional

    channels, height, width = shape
    for path in paths:
        if not path.is_file():
            raise DataError(f"There is no image {path}.")
    images = [torch.from_numpy(read_image(path).copy()).permute(2, 0, 1) for path in paths]
    if channels == 1:
        images = [functional.rgb_to_grayscale(image) for image in images]
    sized = torch.stack([functional.resize(image, [height, width], antialias=True) for image in images])
    mean, std = statistics(spec)
    return (sized / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def statistics(spec: DataSpec) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation that a spec's data is normalized by.

    Example:
        >>> statistics(DataSpec(name="digits"))
        ((0.3051,), (0.3756,))
    """
    info = describe(spec)
    return info.mean, info.std
