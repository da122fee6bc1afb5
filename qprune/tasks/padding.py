"""Images of any size through a network that halves them a number of times."""

import torch.nn.functional as F
from torch import Tensor, nn


def run_padded(net: nn.Module, images: Tensor, multiple: int) -> Tensor:
    """Pad images at the bottom and on the right, run the network, and cut the output back.

    Each side is padded up to the next multiple: by reflection where it is longer than its padding, else with its last
    row or column. Images of fitting size pass as they are, through any network.

    Args:
        net: a network whose output has the height and width of its input.
        images: (N, C, H, W).
        multiple: of what height and width must be, in pixels: 16 for a network that halves them four times.

    Returns:
        what ``net`` gives, (N, any, H, W).

    Raises:
        ValueError: if ``multiple`` is less than 1, or the output is of another height or width.

    Example:
        >>> run_padded(nn.Sequential(nn.MaxPool2d(4), nn.Upsample(scale_factor=4)), torch.zeros(2, 3, 5, 7), 4).shape
        torch.Size([2, 3, 5, 7])
    """
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1; received {multiple}")
    height, width = images.shape[-2:]
    padded = _pad(_pad(images, -2, -height % multiple), -1, -width % multiple)
    output = net(padded)
    if padded is images:
        return output
    if output.shape[-2:] != padded.shape[-2:]:
        raise ValueError(
            f"the network must keep height and width to be run on padded images; {tuple(padded.shape[-2:])} became "
            f"{tuple(output.shape[-2:])}"
        )
    return output[..., :height, :width]


def _pad(images: Tensor, dim: int, amount: int) -> Tensor:
    if amount == 0:
        return images
    mode = "reflect" if amount < images.shape[dim] else "replicate"
    return F.pad(images, (0, amount, 0, 0) if dim == -1 else (0, 0, 0, amount), mode)
