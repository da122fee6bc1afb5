"""`Meter`: means over many batches, kept on the device until somebody asks."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from qprune.tasks import Task


class Meter:
    """Adds up a loss and a task's metrics; nothing is read back before `result`.

    Args:
        task: whose metrics.
        device: where the batches are.

    Example:
        >>> meter = Meter(Classification(classes=3), "cpu")
        >>> meter.update(torch.tensor(0.5), torch.eye(3), torch.tensor([0, 1, 1]))
        >>> meter.result()
        {'loss': 0.5, 'accuracy': 0.6666666865348816}
    """

    def __init__(self, task: Task, device: torch.device | str) -> None:
        self.metrics = task.metrics().to(device)
        self.metrics.persistent(True)
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.count = 0

    @torch.no_grad()
    def update(self, loss: Tensor, output: Any, target: Any) -> None:
        """Add a batch: its mean loss and what the metrics are made from."""
        size = _batch_size(target)
        self.total += loss.detach() * size
        self.count += size
        self.metrics.update(output, target)

    def result(self) -> dict[str, float]:
        """The mean loss per sample and the metrics, as numbers."""
        values = {"loss": self.total / self.count} | self.metrics.compute()
        return {name: float(value) for name, value in values.items()}  # waits for the device

    def reset(self) -> None:
        """Forget every batch."""
        self.metrics.reset()
        self.total.zero_()
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        """What was added up so far, so that a training stopped between two validations can go on."""
        # items() first: metrics that share their state as one group are told of it only there
        updates = {name: metric.update_count for name, metric in self.metrics.items()}
        sums = {"total": self.total.clone(), "count": self.count, "updates": updates}
        return sums | {"metrics": self.metrics.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.metrics.load_state_dict(state["metrics"])
        self.metrics.to(self.total.device)  # loading leaves them where the file was read to
        for name, metric in self.metrics.items():
            metric._update_count = state["updates"][name]  # not part of its state; at 0 it warns of an empty metric
        self.total.copy_(state["total"])
        self.count = state["count"]


def _batch_size(target: Any) -> int:
    tensors = [leaf for leaf in tree_leaves(target) if isinstance(leaf, Tensor)]
    return len(tensors[0]) if tensors and tensors[0].dim() else 1
