"""Checks of batches, labels and outputs, made before the first step where possible."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from qprune.data import EpochSampler, ImageSet, SeededSet, Splits
from qprune.data.pair_set import PairSet
from qprune.data.user_data import PARTS
from qprune.errors import DataError, PlanError
from qprune.flow import Flow
from qprune.tasks import Task

_ONE_VALUE = "Expected more than 1 value per channel"  # what torch says then


def check_labels(splits: Splits, task: Task) -> None:
    """Refuse labels that are no classes, as far as is seen at once: all of them, or that of the first image."""
    if hasattr(task, "check_target"):
        for name in PARTS:
            if (part := getattr(splits, name)) is not None:
                check_target(task, _labels(part), f'data["{name}"]')


def _labels(part: Any) -> Any:
    dataset = part.dataset if isinstance(part, DataLoader) else part
    if isinstance(dataset, ImageSet):
        return dataset.labels
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1] if len(dataset.tensors) == 2 else None
    if isinstance(part, DataLoader | PairSet):  # whose batches are somebody's own, or whose label maps were checked
        return None
    return default_collate([SeededSet(part)[0][1]])


def check_target(task: Task, target: Any, where: str) -> None:
    """Refuse labels that ``task`` does not know, where it can tell and they are on the host."""
    check = getattr(task, "check_target", None)
    if check is None or not isinstance(target, Tensor) or target.device.type != "cpu":
        return
    try:
        check(target)
    except ValueError as error:
        raise DataError(f"{where}: {error}.") from error


def check_output(task: Task, flow: Flow, shape: tuple[int, ...], data: str) -> None:
    """Refuse a network whose output does not fit the classes."""
    check = getattr(task, "check_output", None)
    if check is None or len(flow.outputs) != 1 or flow.outputs[0] < 0:
        return
    try:
        check(flow.calls[flow.outputs[0]].shape, (2, *shape[1:]))
    except ValueError as error:
        raise PlanError(f"The network does not fit the data ({data}): for 2 images its {error}.") from error


def part_size(flow: Flow, fewest: int | None, other: int | None = None) -> int:
    """The least number of images that a part of a batch must have for the network's batch statistics."""
    path = next((str(call.path) for call in flow.calls if _sees_one_value(call.layer, call.shape)), None)
    if path is None:
        return 1
    if fewest == 1:
        such_as = f", such as {other}" if other else ""
        raise PlanError(
            f"{path} takes batch statistics, and an epoch has a batch of 1 image (in one process), which gives it a "
            f"single value per channel. Choose another train.batch{such_as}; in a loader of your own, drop_last=True "
            "leaves a short last batch out."
        )
    return 2


def _sees_one_value(layer: nn.Module | None, shape: tuple[int, ...]) -> bool:
    """Whether batch statistics of one image would be those of one value; ``shape`` is that of two images."""
    batch = isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None)
    return batch and prod(shape) // shape[1] == 2


@contextmanager
def explaining_single_values(where: str) -> Iterator[None]:
    """Turn torch's error about batch statistics of a single value into one sentence."""
    try:
        yield
    except ValueError as error:
        if _ONE_VALUE not in str(error):
            raise
        raise DataError(
            f"{where}: it, or the part of it that is computed at once, has a single image, and a normalization of the "
            "network would take batch statistics over one value per channel. Leave such a batch out (drop_last=True), "
            "or choose another size of batches, or fewer parts (accumulate)."
        ) from error


def fewest_images(loader: DataLoader[Any]) -> int | None:
    """Images of the smallest batch of an epoch, in the process that gets the fewest; None if nobody knows."""
    if isinstance(loader.sampler, EpochSampler):
        return loader.sampler.fewest
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return None
    try:
        size = len(loader.sampler)  # type: ignore[arg-type]  # samplers may have no length
    except TypeError:
        return None
    rest = 0 if loader.drop_last else size % loader.batch_size
    return rest or loader.batch_size
