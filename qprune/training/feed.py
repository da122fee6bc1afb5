"""`Feed`: hands a training its batches, from any step on and until it is interrupted."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from time import perf_counter
from typing import Any

from torch.utils.data import DataLoader

from qprune.data import EpochSampler, LoaderError, LoaderWatch
from qprune.training.interrupt import Interruption


class Feed:
    """The batches of a loader: the rest of an epoch at a time, so that a training can go on in the middle of one.

    Only loaders of `qprune.data.train_loader` can. After the interruption came there is no further batch.
    """

    def __init__(self, loader: DataLoader[Any], steps_per_epoch: int, interruption: Interruption) -> None:
        self.loader, self.steps_per_epoch, self.interruption = loader, steps_per_epoch, interruption
        self._watch = LoaderWatch()
        self._waited = 0.0

    def watching(self) -> AbstractContextManager[None]:
        """Have the end of a loader process told where the next batch is awaited, meanwhile; see `LoaderWatch`."""
        return self._watch.installed()

    def rest_of_epoch(self, step: int) -> Iterator[Any]:
        """The batches from step ``step`` of the training to the end of its epoch."""
        epoch, start = divmod(step, self.steps_per_epoch)
        sampler = self.loader.sampler
        if isinstance(sampler, EpochSampler):
            sampler.epoch, sampler.start = epoch, start
        elif hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        return self.until_interrupted(self._awaited(islice(self.loader, self.steps_per_epoch - start)))

    def _awaited(self, batches: Iterable[Any]) -> Iterator[Any]:
        waiting = iter(batches)
        while True:
            began = perf_counter()
            try:
                batch = next(waiting)
            except StopIteration:
                return
            finally:
                self._waited += perf_counter() - began
            yield batch

    def until_interrupted(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Pass batches on until the interruption comes."""
        try:
            for batch in self._watch.batches(batches):
                yield batch
                if self.interruption.came:
                    return
        except (RuntimeError, LoaderError):
            # loader processes that were spawned, not forked, die of the same Ctrl-C
            if not self.interruption.came:
                raise

    def take_waited(self) -> float:
        """Seconds that were spent waiting for batches since this was last asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    def share(self, number: int) -> float:
        """This process's samples of batch ``number`` of an epoch, as a multiple of the mean over all processes."""
        sampler = self.loader.sampler
        return sampler.share(number) if isinstance(sampler, EpochSampler) else 1.0
