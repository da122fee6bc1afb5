"""Tensors to pictures one can look at: pixels, overlays, rows, files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import field, frozen
from torch import Tensor

from qprune.data import colour
from qprune.host import constant

Palette = Sequence[tuple[int, int, int]]


@frozen
class View:
    """How to show a batch: the mean and deviation it was normalized by, and the colours of its classes.

    Args:
        mean: per channel, or one for all, in units of [0, 1]; the default is that of images in [-1, 1].
        std: likewise.
        palette: (red, green, blue) of each class, 0 to 255.

    Example:
        >>> View(palette=((128, 64, 128), (70, 70, 70)))
        View(mean=(0.5,), std=(0.5,), palette=((128, 64, 128), (70, 70, 70)))
    """

    mean: tuple[float, ...] = field(default=(0.5,))
    std: tuple[float, ...] = field(default=(0.5,))
    palette: Palette = ()


def to_pixels(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo a normalization: ``x * std + mean``, from [0, 1] to 0..255.

    Args:
        x: images, float (..., C, H, W) with 1 or 3 channels.
        mean: per channel, or one for all.
        std: likewise.

    Returns:
        uint8 (..., 3, H, W), rounded; what is outside is cut off.

    Example:
        >>> to_pixels(torch.tensor([-1.0, 0.0, 2.0]).view(1, 1, 3), mean=[0.5], std=[0.5])[:, 0]
        tensor([[  0, 128, 255],
                [  0, 128, 255],
                [  0, 128, 255]], dtype=torch.uint8)
    """
    shift, scale = (constant(tuple(values), x.device).view(-1, 1, 1) for values in (mean, std))
    pixels = ((x.float() * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(*pixels.shape[:-3], 3, -1, -1)


def overlay(pixels: Tensor, labels: Tensor, palette: Palette, alpha: float = 0.5) -> Tensor:
    """Lay the colours of the classes over a picture.

    Args:
        pixels: uint8 (..., 3, H, W).
        labels: int (..., H, W); void, 255, is black.
        palette: (red, green, blue) of each class, 0 to 255.
        alpha: share of the colour, in [0, 1]; the rest is the picture.

    Returns:
        uint8 (..., 3, H, W).

    Example:
        >>> overlay(torch.full((3, 1, 1), 100, dtype=torch.uint8), torch.tensor([[0]]), [(200, 0, 50)])[:, 0, 0]
        tensor([150,  50,  75], dtype=torch.uint8)
    """
    return torch.lerp(pixels.float(), colour(labels, palette).float(), alpha).round().to(torch.uint8)


def side_by_side(*pictures: Tensor) -> Tensor:
    """Join pictures of one height, left to right.

    Args:
        pictures: uint8 (3, H, W), each of its own width.

    Returns:
        uint8 (3, H, sum of W).

    Raises:
        ValueError: if the heights differ.

    Example:
        >>> side_by_side(torch.zeros(3, 2, 5), torch.ones(3, 2, 7)).shape
        torch.Size([3, 2, 12])
    """
    heights = [picture.shape[-2] for picture in pictures]
    if len(set(heights)) > 1:
        raise ValueError(f"pictures side by side must have one height; received {', '.join(map(str, heights))}")
    return torch.cat(pictures, dim=-1)


def write_png(path: Path, picture: Tensor, palette: Palette = ()) -> None:
    """Write a picture, or labels with their colours: then the file's values are the labels, and it looks coloured.

    Args:
        path: the file.
        picture: uint8 (3, H, W), or labels (H, W), 0 to 255.
        palette: (red, green, blue) of each class, of labels.

    Example:
        >>> write_png(Path("labels.png"), torch.zeros(5, 7, dtype=torch.int64), [(128, 64, 0)])
    """
    from PIL import Image  # slow to import

    if picture.dim() == 3:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(path)
        return
    image = Image.fromarray(picture.to(torch.uint8).numpy())
    image.putpalette([value for colours in palette for value in colours])
    image.save(path)
