"""A few samples of a part of the data, spread over it, and how to show them."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Subset

from qprune.data import Splits, eval_loader
from qprune.tasks import View


def spread(part: Any, count: int) -> Any:
    """Samples at equal distances, as many as ``count`` or all; somebody's own loader is taken as it is."""
    if isinstance(part, DataLoader):
        return part
    size = len(part)
    most = min(count, size)
    return Subset(part, [index * size // most for index in range(most)])


def few_samples(part: Any, count: int) -> Any:
    """One batch of so many samples, spread over a part of the data.

    Args:
        part: a map-style dataset, or a loader, of which the first batch is taken.
        count: how many.

    Example:
        >>> few_samples([(torch.zeros(1, 5, 7), 3)] * 9, count=2)[1]
        tensor([3, 3])
    """
    first = next(iter(eval_loader(spread(part, count), batch=count)))
    return tree_map_only(Tensor, lambda values: values[:count], first)


def view_of(splits: Splits, palette: Any = ()) -> View:
    """How to show the images of a run's data.

    Args:
        splits: the data.
        palette: a colour for each class, where the data itself does not say.

    Example:
        >>> view_of(Splits(info=None, train=my_set)).mean
        (0.5,)
    """
    return View(splits.info.mean, splits.info.std, splits.info.palette) if splits.info else View(palette=palette)
