"""`evaluate`: the scores of a network, and how networks and batches are laid out on a device."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from qprune.data import explaining_lost_loaders
from qprune.errors import DataError
from qprune.shrinking import evaluating
from qprune.tasks import Task
from qprune.training.batches import check_target
from qprune.training.meter import Meter


def evaluate(
    net: nn.Module, task: Task, loader: Iterable[Any], device: torch.device | str = "cpu", channels_last: bool = True
) -> dict[str, float]:
    """The mean loss per sample and the metrics of ``net`` in eval mode; the modes of its layers are restored.

    Always in float32, in which the network is deployed. Of several processes each hands in its own samples, and all get
    the scores of all samples together.

    Args:
        net: the network, on ``device``.
        task: whose loss and metrics.
        loader: batches ``(input, target)``.
        device: where to compute.
        channels_last: the layout of the images.

    Returns:
        ``{"loss": ..., "accuracy": ...}``, by the names of the task's metrics.

    Raises:
        DataError: if there is no batch, labels are none of the task's classes, or a process of the loader is gone.

    Example:
        >>> sorted(evaluate(net, Classification(classes=10), loader))
        ['accuracy', 'loss', 'top5']
    """
    meter = Meter(task, device)
    with evaluating(net), torch.no_grad(), explaining_lost_loaders():
        for number, batch in enumerate(loader):
            check_target(task, batch[1], f"Batch {number} of the data to score")
            batch = to_device(batch, device, channels_last)
            meter.update(*task.step(net, batch), batch[1])
    scores = meter.result()
    if not scores:
        raise DataError("There is nothing to evaluate on: the loader gave no batch.")
    return scores


def place(net: nn.Module, device: torch.device | str, channels_last: bool) -> None:
    """Move a network to its device and memory layout, in place."""
    net.to(device, non_blocking=True)
    if channels_last:
        net.to(memory_format=torch.channels_last)


def to_device(batch: Any, device: torch.device | str, channels_last: bool) -> Any:
    """Move the tensors of a batch to the device, those of four dimensions with channels last if asked."""

    def move(tensor: Tensor) -> Tensor:
        layout = torch.channels_last if channels_last and tensor.dim() == 4 else torch.preserve_format
        return tensor.to(device, non_blocking=True, memory_format=layout)

    return tree_map_only(Tensor, move, batch)
