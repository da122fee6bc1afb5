"""Loaders: the order of training samples is a function of (seed, epoch), whatever the number of workers."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from attrs import define, frozen
from torch.utils.data import DataLoader, Dataset, Sampler

from qprune.data.datasets import SeededSet
from qprune.data.seeds import ORDER, permutation
from qprune.data.stored import Fetched, Finisher, Key, StoredSet
from qprune.data.workers import choose_workers, heed_only_the_parent
from qprune.errors import DataError

Shard = tuple[int, int]  # the number of this process, and how many share the samples
WHOLE: Shard = (0, 1)


@define(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) over a shuffle seeded by (seed, epoch), leaving out the first ``start`` batches.

    The trainer sets ``epoch`` before each pass, and ``start`` where it takes up an epoch in the middle (back to 0 for
    the next one). ``len`` counts what is left of the epoch. Of several processes each takes its share of every batch.

    Args:
        size: number of samples.
        batch: samples per batch of all processes together, the unit of ``start``.
        seed: seeds every epoch's order.
        shard: the number of this process, and how many share the samples.

    Raises:
        DataError: if a batch cannot be shared equally, or the last one has fewer samples than there are processes.

    Example:
        >>> sampler = EpochSampler(size=5, batch=2, seed=0)
        >>> sampler.epoch, sampler.start = 3, 2
        >>> [epoch for epoch, index in sampler]
        [3]
    """

    size: int
    batch: int
    seed: int = 0
    epoch: int = 0
    start: int = 0
    shard: Shard = WHOLE

    def __attrs_post_init__(self) -> None:
        world, rest = self.shard[1], self.size % self.batch
        if self.batch % world:
            raise DataError(f"A batch must be shared equally by {world} processes; train.batch is {self.batch}.")
        if 0 < rest < world:
            raise DataError(
                f"Every process needs a sample of every batch; with {self.size} samples in batches of {self.batch} the "
                f"last one has {rest} for {world} processes. Choose another train.batch or number of processes."
            )

    def __len__(self) -> int:
        left = max(0, self.size - self.start * self.batch)
        return len(range(self.shard[0], left, self.shard[1]))

    @property
    def fewest(self) -> int:
        """Images of the smallest batch of an epoch, in the process that gets the fewest.

        Example:
            >>> EpochSampler(size=33, batch=16).fewest
            1
        """
        return (self.size % self.batch or self.batch) // self.shard[1]

    def other_batch(self, least: int) -> int | None:
        """The next larger batch of which every process always gets ``least`` images or more.

        Example:
            >>> EpochSampler(size=33, batch=16).other_batch(2)
            17
        """
        world = self.shard[1]
        sizes = range(self.batch + world, self.size + 1, world)
        return next((size for size in sizes if (self.size % size or size) // world >= least), None)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, world = self.shard
        order = permutation(self.size, ORDER, self.seed, self.epoch)[self.start * self.batch :][rank::world]
        epoch = self.epoch
        return ((epoch, index) for index in order.tolist())

    def share(self, number: int) -> float:
        """This process's samples of batch ``number`` of an epoch, as a multiple of the mean over all processes.

        Example:
            >>> EpochSampler(size=7, batch=4, shard=(0, 2)).share(1)
            1.3333333333333333
        """
        rank, world = self.shard
        total = min(self.batch, self.size - number * self.batch)
        return len(range(rank, total, world)) * world / total


def train_loader(
    dataset: Dataset[Any] | DataLoader[Any],
    *,
    batch: int,
    seed: int = 0,
    workers: int | None = None,
    prefetch: int = 2,
    device: torch.device | str = "cpu",
    shard: Shard = WHOLE,
) -> DataLoader[Any]:
    """A loader that shuffles by (seed, epoch): set ``loader.sampler.epoch`` before each pass.

    Batches depend on neither ``workers`` nor the global generators, which stay as they were. The short last batch is
    kept. A dataset that is no `ImageSet` or `PairSet` is asked by index under a seed of its own per item
    (`SeededSet`). A loader is returned as it is.

    Args:
        dataset: map-style, or a loader of your own.
        batch: samples per batch, of all processes together.
        seed: seeds the order, and the items of foreign datasets.
        workers: worker processes, kept from epoch to epoch; 0 loads in this process. By default as many as
            `choose_workers` says.
        prefetch: batches that each worker keeps ready.
        device: where batches will go; memory is pinned for cuda. An `ImageSet` or `PairSet` is augmented and normalized
            there, and its batches are there.
        shard: the number of this process, and how many share the samples; a loader of your own has to know by itself.

    Raises:
        DataError: as `EpochSampler`.

    Example:
        >>> loader = train_loader(splits.train, batch=128, seed=0)
        >>> loader.sampler.epoch = 1
        >>> images, labels = next(iter(loader))
    """
    if isinstance(dataset, DataLoader):
        return dataset
    items = _seeded(dataset, seed)
    sampler = EpochSampler(len(items), batch, seed, shard=shard)
    return _loader(items, batch // shard[1], workers, prefetch, device, sampler)


def eval_loader(
    dataset: Dataset[Any] | DataLoader[Any],
    *,
    batch: int,
    workers: int | None = None,
    prefetch: int = 2,
    device: torch.device | str = "cpu",
    shard: Shard = WHOLE,
) -> DataLoader[Any]:
    """A loader in the dataset's own order, without augmentation. A loader is returned as it is.

    What the items of a foreign dataset draw by chance is the same in every pass, as for `train_loader` in epoch 0.

    Args:
        dataset: map-style, or a loader of your own.
        batch: samples per batch; the short last one is kept.
        workers: as for `train_loader`.
        prefetch: batches that each worker keeps ready.
        device: as for `train_loader`.
        shard: as for `train_loader`; every sample goes to one process.

    Example:
        >>> sum(len(labels) for images, labels in eval_loader(splits.test, batch=256))
        400
    """
    if isinstance(dataset, DataLoader):
        return dataset
    items = _seeded(dataset)
    return _loader(items, batch, workers, prefetch, device, range(shard[0], len(items), shard[1]))


def _seeded(dataset: Dataset[Any], seed: int = 0) -> StoredSet | SeededSet:
    return dataset if isinstance(dataset, StoredSet | SeededSet) else SeededSet(dataset, seed)


def _loader(
    items: StoredSet | SeededSet,
    batch: int,
    workers: int | None,
    prefetch: int,
    device: torch.device | str,
    sampler: Sampler[Any] | Sequence[int],
) -> DataLoader[Any]:
    if workers is None:
        workers = choose_workers(in_memory=items.in_memory if isinstance(items, StoredSet) else True)
    options: dict[str, Any] = {
        "batch_size": batch,
        "sampler": sampler,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "prefetch_factor": prefetch if workers else None,
        "pin_memory": torch.device(device).type == "cuda",
        "worker_init_fn": heed_only_the_parent,
        "generator": torch.Generator(),  # else every pass would draw its workers' seed from the global generator
    }
    if isinstance(items, StoredSet):
        return StoredLoader(items, device, **options)
    return DataLoader(items, **options)


class StoredLoader(DataLoader[Any]):
    """Fetches bytes, in processes of its own if it has some, and finishes each batch in this one, on a device."""

    def __init__(self, items: StoredSet, device: torch.device | str, **options: Any) -> None:
        super().__init__(_Fetching(items), collate_fn=_fetched, **options)
        self.items, self.device = items, device

    @cached_property
    def _finisher(self) -> Finisher:
        return self.items.finisher(self.device)  # once, since bringing its constants there waits for the device

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its own iterators
        return map(self._finisher, super().__iter__())


@frozen(eq=False)
class _Fetching(Dataset[Fetched]):
    """What a loader's process does of a dataset."""

    items: StoredSet

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, keys: Sequence[Key]) -> Fetched:
        return self.items.fetch(keys)


def _fetched(batch: Any) -> Any:
    return batch
