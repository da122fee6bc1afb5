"""Random transforms that take a whole batch, each sample with numbers of its own; imports torchvision.

A sample is the same by itself, in any batch and on any device. Moves of pixels and curves of bytes are exact, so they
are torchvision's, too; ColorJitter is computed so that it does not depend on the batch (`qprune.data.colour_jitter`),
and a few values are a level away from torchvision's. What interpolates (RandomResizedCrop, rotations, resizing) rounds
by the order of its float operations, which a batch and a GPU change: such transforms are given the pictures of one
sample at a time (`qprune.data.augment.Augment`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from qprune.data import colour_jitter
from qprune.data.info import IGNORE
from qprune.data.transforms import RandomGamma, RandomTranslate

Size = tuple[int, int]
Numbers = Sequence[Any] | Tensor  # what one sample drew for one transform


@frozen(eq=False)
class Batchwise:
    """A transform of whole batches, as torchvision has it for one sample."""

    transform: Any

    def draw(self, picture: Tensor) -> Numbers:
        """The numbers of one sample, drawn from torch's global generator in torchvision's order."""
        raise NotImplementedError

    def stack(self, drawn: Sequence[Any]) -> Any:
        """What the samples of a batch drew, as a tensor (N, ...) or a tuple with some: tensors go to the device."""
        return torch.stack(tuple(drawn)) if isinstance(drawn[0], Tensor) else torch.tensor(drawn)

    def apply(self, pictures: Tensor, drawn: Any) -> Tensor:
        """Transform images (N, C, H, W) or label maps (N, H, W) by what was drawn for each, as `stack` gave it."""
        raise NotImplementedError

    def size_after(self, size: Size) -> Size:
        """(height, width) of what comes of pictures of a size."""
        return size


def batchwise(transform: Any) -> Batchwise | None:
    """The same transform for whole batches; None if it has to be given one sample at a time."""
    make = _KINDS.get(type(transform))
    return make(transform) if make else None


@frozen(eq=False)
class _Flip(Batchwise):
    """Some samples are mirrored."""

    dim: int
    p: float  # rounded to float32, in which torchvision compares

    def draw(self, picture: Tensor) -> Numbers:
        return (int(torch.rand(1).item() < self.p),)

    @classmethod
    def along(cls, dim: int) -> Callable[[Any], "_Flip"]:
        return lambda transform: cls(transform, dim, float(np.float32(transform.p)))

    def apply(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        # torch.where takes seven times as long, a boolean index waits for the device
        both = torch.cat([pictures, pictures.flip(self.dim)])
        return both.index_select(0, _places(pictures) + len(pictures) * drawn[:, 0])


@frozen(eq=False)
class _Window(Batchwise):
    """A window of the padded pictures, of one size, at a place of each sample's own."""

    size: Size | None  # of the window; None for that of the pictures before they are padded
    padding: Sequence[int]  # left, top, right, bottom
    image_border: dict[str, Any]  # how images are padded, as arguments of torchvision
    label_border: dict[str, Any]  # the same of label maps

    def apply(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        if pictures.dim() == 3:
            return self._windows(pictures.unsqueeze(1), drawn, self.label_border).squeeze(1)
        return self._windows(pictures, drawn, self.image_border)

    def _windows(self, pictures: Tensor, drawn: Tensor, border: dict[str, Any]) -> Tensor:
        height, width = self.size_after((pictures.shape[2], pictures.shape[3]))
        if any(self.padding):
            pictures = functional.pad(pictures, list(self.padding), **border)
        return (copied if pictures.device.type == "cpu" else indexed)(pictures, drawn, height, width)

    def size_after(self, size: Size) -> Size:
        return self.size or size


def copied(pictures: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """Windows of images (N, C, H, W) on the CPU at ``places`` (N, 2), row and column: NumPy copies rows of bytes."""
    windows = sliding_window_view(pictures.numpy(), (height, width), axis=(2, 3))
    tops, lefts = places.numpy().T
    return torch.from_numpy(windows[np.arange(len(pictures)), :, tops, lefts])


def indexed(pictures: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """The same on any device, from which no place is read back; a CPU copies byte by byte, up to 17 times as long."""
    return pictures.unfold(2, height, 1).unfold(3, width, 1)[_places(pictures), :, places[:, 0], places[:, 1]]


class _Crop(_Window):
    def draw(self, picture: Tensor) -> Numbers:
        (height, width), (left, top, right, bottom) = self.size_after((0, 0)), self.padding
        down, across = picture.shape[-2] + top + bottom - height, picture.shape[-1] + left + right - width
        if down < 0 or across < 0:
            self.transform.make_params([picture])  # says what is wrong
        # what make_params draws, in a third of its time
        return [int(torch.randint(0, room + 1, ())) if room else 0 for room in (down, across)]

    @classmethod
    def of(cls, transform: Any) -> "_Crop | None":
        fills = [_fill(transform.fill, kind) for kind in (tv_tensors.Image, tv_tensors.Mask)]
        if transform.pad_if_needed or not all(isinstance(fill, int | float) for fill in fills):
            return None  # what is padded depends on the picture, or on the channel
        left, right, top, bottom = transform.padding or (0, 0, 0, 0)
        borders = [{"padding_mode": transform.padding_mode, "fill": fill} for fill in fills]
        return cls(transform, tuple(transform.size), (left, top, right, bottom), *borders)


class _Translate(_Window):
    def draw(self, picture: Tensor) -> Numbers:
        drawn, (across, down) = self.transform.make_params([picture]), self.transform.pixels
        return down - drawn["down"], across - drawn["across"]

    @classmethod
    def of(cls, transform: RandomTranslate) -> "_Translate":
        return cls(transform, None, 2 * transform.pixels, {"padding_mode": "reflect"}, {"fill": IGNORE})


class _Curve(Batchwise):
    """Bytes go through a table of each sample's own, which torchvision makes on the CPU; labels stay."""

    def draw(self, picture: Tensor) -> Numbers:
        table: Tensor = self.transform(torch.arange(256, dtype=torch.uint8).view(1, 1, 256))
        return table.view(256)

    def apply(self, pictures: Tensor, drawn: Tensor) -> Tensor:
        if pictures.dim() == 3:
            return pictures
        return drawn.gather(1, pictures.flatten(1).long()).view_as(pictures)


class _Jitter(Batchwise):
    """Colours change by functions in an order of each sample's own; labels stay."""

    def draw(self, picture: Tensor) -> Numbers:
        return colour_jitter.draw(self.transform, picture)

    def stack(self, drawn: Sequence[Any]) -> colour_jitter.Jitter:
        return colour_jitter.grouped(drawn)

    def apply(self, pictures: Tensor, drawn: colour_jitter.Jitter) -> Tensor:
        return pictures if pictures.dim() == 3 else colour_jitter.jittered(pictures, drawn)


def _places(pictures: Tensor) -> Tensor:
    return torch.arange(len(pictures), device=pictures.device)


def _fill(fill: Any, kind: type) -> Any:
    return fill[kind] if isinstance(fill, dict) else fill


_KINDS: dict[type, Callable[[Any], Batchwise | None]] = {
    v2.RandomHorizontalFlip: _Flip.along(-1),
    v2.RandomVerticalFlip: _Flip.along(-2),
    v2.RandomCrop: _Crop.of,
    v2.RandomInvert: _Curve,
    v2.RandomPosterize: _Curve,
    v2.RandomSolarize: _Curve,
    v2.ColorJitter: _Jitter,
    RandomGamma: _Curve,
    RandomTranslate: _Translate.of,
}
