"""Loaders: the order of training samples is a function of (seed, epoch), whatever the number of workers."""

from collections.abc import Iterator
from typing import Any

import torch
from attrs import define
from torch.utils.data import DataLoader, Dataset, Sampler

from qprune.data.datasets import ImageSet, SeededSet
from qprune.data.pair_set import PairSet
from qprune.data.seeds import ORDER, permutation


@define(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) over a shuffle seeded by (seed, epoch), leaving out the first ``start`` batches.

    The trainer sets ``epoch`` before each pass, and ``start`` where it takes up an epoch in the middle (back to 0 for
    the next one). ``len`` counts what is left of the epoch.

    Args:
        size: number of samples.
        batch: samples per batch, the unit of ``start``.
        seed: seeds every epoch's order.

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

    def __len__(self) -> int:
        return max(0, self.size - self.start * self.batch)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = permutation(self.size, ORDER, self.seed, self.epoch)[self.start * self.batch :]
        epoch = self.epoch
        return ((epoch, index) for index in order.tolist())


def train_loader(
    dataset: Dataset[Any] | DataLoader[Any],
    *,
    batch: int,
    seed: int = 0,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> DataLoader[Any]:
    """A loader that shuffles by (seed, epoch): set ``loader.sampler.epoch`` before each pass.

    Batches depend on neither ``workers`` nor the global generators, which stay as they were. The short last batch is
    kept. A dataset that is no `ImageSet` or `PairSet` is asked by index under a seed of its own per item
    (`SeededSet`). A loader is returned as it is.

    Args:
        dataset: map-style, or a loader of your own.
        batch: samples per batch.
        seed: seeds the order, and the items of foreign datasets.
        workers: worker processes, kept from epoch to epoch; 0 loads in this process.
        device: where batches will go; memory is pinned for cuda.

    Example:
        >>> loader = train_loader(splits.train, batch=128, seed=0)
        >>> loader.sampler.epoch = 1
        >>> images, labels = next(iter(loader))
    """
    if isinstance(dataset, DataLoader):
        return dataset
    items = dataset if isinstance(dataset, ImageSet | PairSet | SeededSet) else SeededSet(dataset, seed)
    return _loader(items, batch, workers, device, EpochSampler(len(items), batch, seed))


def eval_loader(
    dataset: Dataset[Any] | DataLoader[Any], *, batch: int, workers: int = 0, device: torch.device | str = "cpu"
) -> DataLoader[Any]:
    """A loader in the dataset's own order, without augmentation. A loader is returned as it is.

    Args:
        dataset: map-style, or a loader of your own.
        batch: samples per batch; the short last one is kept.
        workers: worker processes; 0 loads in this process.
        device: where batches will go; memory is pinned for cuda.

    Example:
        >>> sum(len(labels) for images, labels in eval_loader(splits.test, batch=256))
        10000
    """
    return dataset if isinstance(dataset, DataLoader) else _loader(dataset, batch, workers, device, None)


def _loader(
    dataset: Dataset[Any], batch: int, workers: int, device: torch.device | str, sampler: Sampler[Any] | None
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # else every pass would draw its workers' seed from the global generator
    )
