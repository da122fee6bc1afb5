"""Image files as a trained network wants to see them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from qprune.data.decode import Frame, read_image, read_size
from qprune.data.info import usual_statistics
from qprune.errors import DataError
from qprune.spec import DataSpec

GREY = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601


def read_inputs(spec: DataSpec, paths: Sequence[Path], shape: Sequence[int] | None = None) -> Tensor:
    """Read image files for a network: of its size, with its channels, normalized as in training.

    Images of another size are brought to it as those of a folder are in evaluation, squeezed or cut out; for a network
    of one channel they are turned grey. The data that the network was trained on need not be here. With
    ``translate = "BtoA"`` the files are label maps in the colours of the palette.

    Args:
        spec: the ``[data]`` that the network was trained on, for its mean and standard deviation.
        paths: the files.
        shape: ``(C, H, W)`` of the network's images. By default images are RGB and keep their size, for networks that
            take any: those for scenes and for translation.

    Returns:
        float32 ``(len(paths), C, H, W)``.

    Raises:
        DataError: if the spec names no data, a file is missing or no image, the network takes neither 1 nor 3 channels,
            or images that keep their sizes have several.

    Example:
        >>> read_inputs(DataSpec(name="cifar10"), [Path("cat.png")], (3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """
    if spec.is_own:
        raise DataError(
            "The network was trained on data that was handed over, and nothing says how its images were normalized. "
            "Make tensors of the files as for that data, and call qprune.predict in Python."
        )
    for path in paths:
        if not path.is_file():
            raise DataError(f"There is no image {path}.")
    if shape is None:
        shape = (3, *_one_size(paths))
    if shape[0] not in (1, 3):
        raise DataError(f"Image files have 1 or 3 channels; the network takes {shape[0]}. Call it on tensors.")
    channels, height, width = shape
    frame = Frame.of(spec, (height, width))
    files = [torch.from_numpy(read_image(path, frame).copy()) for path in paths]
    images = torch.stack(files).permute(0, 3, 1, 2).float().contiguous()
    if channels == 1:
        # torchvision's weights sum to 0.9999 and its result is cut to integers, which turns grey 100 into 99
        images = (images * GREY).sum(1, keepdim=True)
    mean, std = usual_statistics("translation" if spec.translate else spec.name, shape[0])
    return (images / 255 - _per_channel(spec.mean or mean)) / _per_channel(spec.std or std)


def _one_size(paths: Sequence[Path]) -> tuple[int, int]:
    sizes = {read_size(path): path for path in paths}
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise DataError(
            f"{other}: images that are read together must have one size, {first[0]}x{first[1]} (height x width) as "
            f"{one}; received {second[0]}x{second[1]}. Read them one by one."
        )
    return next(iter(sizes))


def _per_channel(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers).view(-1, 1, 1)
