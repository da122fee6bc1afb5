"""Datasets whose batches are fetched as bytes, and become what a network reads where it is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from attrs import frozen
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset

from qprune.data.augment import Augment
from qprune.data.painting import colour_table, painted
from qprune.data.palettes import Colour

Key: TypeAlias = int | tuple[int, int]
Begun: TypeAlias = tuple[Tensor, Sequence[Any]]  # a picture, and what it drew for each transform of whole batches


class Fetched(NamedTuple):
    """A batch before it is augmented: what loader processes hand over, and what travels to a GPU."""

    inputs: Tensor  # uint8 images (N, C, H, W) or label maps (N, H, W)
    targets: Tensor  # the same, or int64 classes (N,)
    # what the samples of either drew for the transforms that take whole batches; () where nothing is to be done
    drawn: tuple[Sequence[Any], Sequence[Any]] = ((), ())


class StoredSet(Dataset[tuple[Tensor, Any]]):
    """A dataset of bytes, asked by (epoch, index) for training items and by index for plain ones.

    An item, and a batch, is made in two parts. `fetch` is the part for loader processes: it reads or decodes, applies
    the transforms that need one picture at a time, and draws by (seed, epoch, index) for those that take whole batches.
    `finisher` is the other part, which runs on the device: these transforms and the normalization. So bytes travel, a
    quarter of what float32 takes. The keys of a batch are all of one kind.
    """

    mean: Sequence[float]
    std: Sequence[float]
    palette: Sequence[Colour] = ()
    augment: Augment | None

    def fetch(self, keys: Sequence[Key]) -> Fetched:
        """The bytes of a batch."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def in_memory(self) -> bool:
        """Whether nothing is decoded when items are asked for."""
        raise NotImplementedError

    def finisher(self, device: torch.device | str = "cpu") -> "Finisher":
        """What makes batches of fetched ones, on a device."""
        return Finisher.on(device, self)

    def __getitem__(self, key: Key) -> tuple[Tensor, Any]:
        if isinstance(key, int) and key < 0:
            key += len(self)
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Tensor, Any]]:
        inputs, targets = self.finisher()(self.fetch(keys))
        classes = targets.tolist() if targets.dim() == 1 else targets.unbind()
        return list(zip(inputs.unbind(), classes, strict=True))


@frozen(eq=False)
class Finisher:
    """Makes batches of fetched ones on the device: augments what takes whole batches, paints labels, normalizes.

    Its constants are on the device, since copying one there waits for all that the device has to do.
    """

    device: torch.device
    augment: Augment | None
    largest: Tensor  # 255: a GPU divides by a number through its rounded inverse
    mean: Tensor  # (C, 1, 1)
    std: Tensor
    table: Tensor | None  # the colour of each label, (256, 3)

    @classmethod
    def on(cls, device: torch.device | str, data: StoredSet) -> "Finisher":
        """For a dataset, on a device."""
        mean, std = (torch.tensor(numbers).view(-1, 1, 1).to(device) for numbers in (data.mean, data.std))
        table = colour_table(data.palette).to(device) if data.palette else None
        return cls(torch.device(device), data.augment, torch.tensor(255.0).to(device), mean, std, table)

    def __call__(self, fetched: Fetched) -> tuple[Tensor, Tensor]:
        """The batch, as of the items of the dataset."""
        there = tree_map_only(Tensor, lambda tensor: tensor.to(self.device, non_blocking=True), fetched)
        inputs, targets = (
            self._finish(pictures, drawn) for pictures, drawn in zip(there[:2], there.drawn, strict=True)
        )
        return inputs, targets

    def _finish(self, pictures: Tensor, drawn: Sequence[Any]) -> Tensor:
        if self.augment is not None:
            pictures = self.augment.finish(pictures, drawn)
        if pictures.dim() == 1:
            return pictures
        if pictures.dim() == 3:
            if self.table is None:
                return pictures.long()
            pictures = painted(pictures, self.table)
        return pictures.float().div_(self.largest).sub_(self.mean).div_(self.std)


def split_keys(keys: Sequence[Key]) -> tuple[list[int] | None, list[int]]:
    """Epochs (None for plain items) and indices of a batch of keys."""
    pairs = [key if isinstance(key, tuple) else (None, int(key)) for key in keys]
    epochs = [epoch for epoch, _ in pairs if epoch is not None]
    return epochs or None, [index for _, index in pairs]


def begin(
    augment: Augment, samples: Iterable[Sequence[Sequence[Tensor]]], seeds: Iterable[int]
) -> list[tuple[Begun, ...]]:
    """Augment the pictures of samples as far as each needs it by itself, and draw for the rest.

    Each sample has groups of pictures that are augmented together, and a seed of all that it draws. Given are, for each
    place in a sample, one group after the other, what came of the picture there of every sample.
    """
    begun = []
    with torch_state_kept():
        for groups, seed in zip(samples, seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            made = [augment.begin(*group) for group in groups]
            begun.append([(picture, numbers) for pictures, numbers in made for picture in pictures])
    return list(zip(*begun, strict=True))


def gather(
    side: Sequence[Begun], augment: Augment, size: tuple[int, int], fit: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Sequence[Any]]:
    """Pictures that `begin` gave as one tensor, and what they drew for transforms of whole batches.

    Those are applied here already, and nothing is left of what was drawn, where the pictures differ in size or come to
    ``size``, that of all, only by ``fit`` afterwards.
    """
    sizes = {size_of(picture) for picture, _ in side}
    if len(sizes) == 1 and augment.size_after(sizes.pop()) == size:
        pictures, drawn = zip(*side, strict=True)
        return torch.stack(pictures), augment.stacked(drawn)
    return torch.stack([fit(augment.alone(*begun)) for begun in side]), ()


def size_of(picture: Tensor) -> tuple[int, int]:
    """(height, width)."""
    height, width = picture.shape[-2:]
    return height, width


@contextmanager
def torch_state_kept() -> Iterator[None]:
    """Give the global generator its state back on leaving."""
    # torch.manual_seed and fork_rng also visit every accelerator, which takes 80 times as long; pixels are on the CPU.
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
