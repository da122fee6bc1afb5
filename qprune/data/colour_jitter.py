"""torchvision's ColorJitter for whole batches of bytes, each image by numbers of its own; the same on every device.

Every operation is exact, or rounds its one result correctly as IEEE 754 has it. So an image depends on neither its
batch, nor where the vectors of a CPU end, nor the device. As in torchvision, images are bytes again after each
function. torchvision itself fuses a product with a sum in the vectors of a CPU, which rounds once where this rounds
twice, and its hue divides: few values are one level away.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Row = Sequence[float]  # a function by its place in FUNCTIONS, and its three numbers


class Jitter(NamedTuple):
    """What the images of a batch drew, grouped by function for each place in the order of functions.

    The sizes of groups are numbers of the host, so that nothing waits for a device.
    """

    groups: Tensor  # (places, N): images, those of the first function before those of the second ...
    back: Tensor  # (places, N): where each image is in its groups
    counts: Sequence[Sequence[int]]  # of each place, how many images each function has
    numbers: Tensor  # (places, N, 3), float32, in the order of the groups


def draw(transform: Any, image: Tensor) -> list[Row]:
    """The functions of one image in their order, drawn as torchvision does."""
    drawn = transform.make_params([image])
    factors = [drawn[f"{name}_factor"] for name in ("brightness", "contrast", "saturation", "hue")]
    order = drawn["fn_idx"].tolist()
    return [(index, *_numbers(index, factors[index])) for index in order if factors[index] is not None]


def _numbers(index: int, factor: float) -> Row:
    if FUNCTIONS[index] is adjust_hue:  # how far red, green and blue are turned, in sixths, from -3 to 3
        return [(6 * factor - place + 3) % 6 - 3 for place in (0, 2, 4)]
    return factor, 1.0 - factor, 0.0


def grouped(drawn: Sequence[Sequence[Row]]) -> Jitter:
    """Of all images of a batch, each with as many functions."""
    rows = torch.tensor(drawn, dtype=torch.float64).view(len(drawn), len(drawn[0]), 4).transpose(0, 1)
    functions = rows[..., 0].long()
    groups = functions.argsort(dim=1, stable=True)
    counts = [place.bincount(minlength=len(FUNCTIONS)).tolist() for place in functions]
    numbers = rows[..., 1:].gather(1, groups.unsqueeze(2).expand(-1, -1, 3))
    return Jitter(groups, groups.argsort(dim=1), counts, numbers.float())


def jittered(images: Tensor, drawn: Jitter) -> Tensor:
    """Images (N, C, H, W), bytes of 1 or 3 channels, after the functions of each."""
    for groups, back, counts, numbers in zip(*drawn, strict=True):
        parts = zip(FUNCTIONS, images.index_select(0, groups).split(counts), numbers.split(counts), strict=True)
        # on a CPU index_copy takes longer than joining the parts and putting them in order
        images = torch.cat([adjust(part, own) for adjust, part, own in parts if len(part)]).index_select(0, back)
    return images


def adjust_brightness(images: Tensor, numbers: Tensor) -> Tensor:
    """Images times a factor each, the first of ``numbers`` (N, 3)."""
    return _bytes(images.float().mul_(numbers[:, 0].view(-1, 1, 1, 1)).clamp_(0, 255))


def adjust_contrast(images: Tensor, numbers: Tensor) -> Tensor:
    """Images blended with the mean of their grey."""
    floats = images.float()
    return _blended(floats, _mean(grey(floats)), numbers)


def adjust_saturation(images: Tensor, numbers: Tensor) -> Tensor:
    """Images blended with their grey; those of one channel stay."""
    if images.shape[1] == 1:
        return images
    floats = images.float()
    return _blended(floats, grey(floats), numbers)


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Images whose hues are turned, by sixths (N, 3) for red, green and blue; those of one channel stay.

    A channel is a trapezium over the circle of hues between the least and the greatest of a pixel. All is times their
    range, so that there is nothing to divide by.
    """
    if images.shape[1] == 1:
        return images
    least, most, hue = _least_most_and_hue(images)
    span = most - least
    half = 3 * span
    channels = turns.view(-1, 3, 1, 1) * span
    channels.add_(hue - half).abs_().sub_(half).abs_()
    torch.sub(2 * span + least, channels, out=channels)
    torch.minimum(channels, most, out=channels)
    torch.maximum(channels, least, out=channels)
    return _bytes(channels.mul_(255.999 / 255))  # torchvision's way back to bytes


def _least_most_and_hue(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each (N, 1, H, W), in float32; hue in sixths of the circle times the range, a whole number."""
    red, green, blue = images.short().split(1, 1)
    most, least = torch.maximum(red, green).maximum(blue), torch.minimum(red, green).minimum(blue)
    span = most - least
    hue = 4 * span + red - green
    hue += (2 * span + blue - red - hue) * (green == most).short()
    hue += (green - blue - hue) * (red == most).short()
    return least.float(), most.float(), hue.float()


def grey(floats: Tensor) -> Tensor:
    """Brightness (N, 1, H, W) of images of whole numbers: the whole part of 0.2989 red + 0.587 green + 0.114 blue."""
    if floats.shape[1] == 1:
        return floats
    red, green, blue = floats.split(1, 1)
    total = red.mul(2989).add_(green, alpha=5870).add_(blue, alpha=1140)  # whole numbers below 2**24: exact
    return total.div_(total.new_full((), 10_000)).floor_()  # a GPU divides by a number through its rounded inverse


def _mean(pictures: Tensor) -> Tensor:
    """Of each picture of whole numbers, (N, 1, 1, 1): float64 holds every sum of them, in any order."""
    totals = pictures.flatten(1).sum(1, dtype=torch.float64)
    return totals.div_(totals.new_full((), pictures[0].numel())).float().view(-1, 1, 1, 1)


def _blended(floats: Tensor, others: Tensor, numbers: Tensor) -> Tensor:
    """Bytes of a share of each image and a share of the other, the first two of ``numbers`` (N, 3)."""
    share, rest, _ = numbers.view(-1, 3, 1, 1, 1).unbind(1)
    return _bytes(floats.mul_(share).add_(others * rest).clamp_(0, 255))


def _bytes(floats: Tensor) -> Tensor:
    """Whole parts; through int16 a CPU takes half the time."""
    return floats.short().to(torch.uint8)


FUNCTIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (  # in torchvision's order
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)
