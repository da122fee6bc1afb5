"""`Meter`: means over many batches, kept on the device until somebody asks."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from qprune.host import on_host
from qprune.tasks import Task
from qprune.training import ranks


class Meter:
    """Adds up a loss and a task's metrics where the batches are; nothing is read back before `result`."""

    def __init__(self, task: Task, device: torch.device | str) -> None:
        self.metrics = task.metrics().to(device, non_blocking=True)
        self.metrics.persistent(True)
        for metric in self.metrics.values():
            metric.distributed_available_fn = _never  # processes are merged where all of them ask, in `result`
            metric.compute_with_cache = False  # what `local` computed is not the result of all
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.count = 0

    @torch.no_grad()
    def update(self, loss: Tensor, output: Any, target: Any) -> None:
        """Add a batch of this process: its mean loss and what the metrics are made from."""
        size = _batch_size(target)
        self.total += loss.detach() * size
        self.count += size
        self.metrics.update(output, target)

    def result(self) -> dict[str, float]:
        """The mean loss per sample and the metrics, as numbers, over the samples of all processes."""
        total, count = self._sums()
        with self._merging():
            return _numbers({"loss": total / count} | self.metrics.compute()) if count else {}

    def local(self) -> dict[str, float]:
        """The same as `result` for this process's samples alone, without waiting for the other processes."""
        return _numbers({"loss": self.total / self.count} | self.metrics.compute()) if self.count else {}

    def _sums(self) -> tuple[Tensor, int]:
        """Total loss and number of the samples of all processes."""
        if ranks.world() == 1:
            return self.total, self.count
        total, count = ranks.summed([self.total, torch.tensor(self.count, device=self.total.device)])
        return total, int(count)

    @contextmanager
    def _merging(self) -> Iterator[None]:
        """Metrics are computed as if each had seen the samples of all processes."""
        for metric in self.metrics.values():
            metric.distributed_available_fn = ranks.several
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a process that has no sample of its own
                yield
        finally:
            for metric in self.metrics.values():
                metric.distributed_available_fn = _never

    def reset(self) -> None:
        """Forget every batch."""
        self.metrics.reset()
        self.total.zero_()
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        """The sums over all processes so far, so that a training can be resumed between two validations."""
        # items() first: metrics that share their state as one group are told of it only there
        updates = {name: metric.update_count for name, metric in self.metrics.items()}
        total, count = self._sums()
        with ExitStack() as stack:
            for metric in self.metrics.values():
                stack.enter_context(metric.sync_context(distributed_available=ranks.several))
            metrics = {name: value.clone() for name, value in self.metrics.state_dict().items()}
        return {"total": total.clone(), "count": count, "updates": updates, "metrics": metrics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums; of several processes one takes them, the others start at zero."""
        if not ranks.is_writer():
            self.reset()
            return
        self.metrics.load_state_dict(state["metrics"])
        self.metrics.to(self.total.device)  # loading leaves them where the file was read to
        for name, metric in self.metrics.items():
            metric._update_count = state["updates"][name]  # not part of its state; at 0 it warns of an empty metric
        self.total.copy_(state["total"])
        self.count = state["count"]


def _never() -> bool:
    return False


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    read = dict(zip(tensors, on_host(list(tensors.values())), strict=True))  # waits for the device, once for all
    return {name: float(read.get(name, value)) for name, value in values.items()}


def _batch_size(target: Any) -> int:
    tensors = [leaf for leaf in tree_leaves(target) if isinstance(leaf, Tensor)]
    return len(tensors[0]) if tensors and tensors[0].dim() else 1
