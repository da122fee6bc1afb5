"""The pictures that a task shows at each validation: always of the same images."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset, Subset

from qprune.data import Splits, eval_loader
from qprune.tasks import View
from qprune.training.evaluation import evaluating, to_device
from qprune.training.trainer import Trainer

IMAGES = 4


def panels_of(trainer: Trainer, splits: Splits) -> Callable[[], list[Tensor]] | None:
    """What draws some validation images, or test images where there are no others, as the network sees them now.

    They are spread evenly over the split, whose neighbours may be frames of one film. Of a loader that was handed over
    they are the first.

    Args:
        trainer: whose network and task.
        splits: the data.

    Returns:
        None where the task has no ``panels``, or there are no images to show.

    Example:
        >>> TensorBoard("runs/mine/tensorboard", panels_of(trainer, splits))
    """
    task: Any = trainer.task
    part = splits.val if splits.val is not None else splits.test
    if part is None or not hasattr(task, "panels"):
        return None
    info = splits.info
    view = View(info.mean, info.std, info.palette) if info else View()
    batch = tree_map_only(Tensor, lambda images: images[:IMAGES], next(iter(eval_loader(_spread(part), batch=IMAGES))))

    def draw() -> list[Tensor]:
        with evaluating(trainer.net), torch.no_grad():
            placed = to_device(batch, trainer.device, trainer.channels_last)
            return [picture.cpu() for picture in task.panels(trainer.net, placed, view)]

    return draw


def _spread(part: Dataset[Any] | DataLoader[Any]) -> Any:
    if isinstance(part, DataLoader):
        return part
    size: int = len(part)  # type: ignore[arg-type]  # a map-style dataset has a length
    return Subset(part, [index * size // IMAGES for index in range(IMAGES)])
