"""Estimates how far two scores on the same images may differ by chance."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

from qprune.data import eval_loader
from qprune.tasks import Task
from qprune.training import evaluate

GROUPS = 100


def score_errors(
    one: nn.Module, other: nn.Module, task: Task, images: Any, *, batch: int, channels_last: bool = True
) -> dict[str, float]:
    """The standard error of the difference between the scores of two networks on the CPU, for each metric.

    The images fall into at most 100 groups, each with a difference of its own; how these vary says how much chance
    there is in that of all. It is small where both err on the same images, as a network and a file made of it do.

    Source: batch means of paired differences; Law (2015), *Simulation Modeling and Analysis*, chapters 9 and 10.
    """
    differences: dict[str, list[float]] = {}
    for group in torch.arange(len(images)).tensor_split(min(GROUPS, len(images))):
        loader = eval_loader(Subset(images, group.tolist()), batch=batch)
        first, second = (evaluate(net, task, loader, channels_last=channels_last) for net in (one, other))
        for name in first.keys() & second.keys():
            differences.setdefault(name, []).append(first[name] - second[name])
    return {name: _error(torch.tensor(values)) for name, values in differences.items()}


def _error(differences: torch.Tensor) -> float:
    known = differences[differences.isfinite()].double()  # a class that no image of a group shows has no score
    return float(known.std() / len(known) ** 0.5) if len(known) > 1 else 0.0
