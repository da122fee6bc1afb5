"""Reads the shape of the images and the classes from data that the user passed."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from qprune.data.datasets import SeededSet
from qprune.data.info import IGNORE
from qprune.data.stored import torch_state_kept
from qprune.errors import DataError


def image_shape(part: Dataset[Any] | DataLoader[Any]) -> tuple[int, int, int]:
    """``(C, H, W)`` of the first image; random generators are left as they were.

    Raises:
        DataError: if the data does not give pairs of an image and a target, or its images are no float32 tensors of
            three dimensions.

    Example:
        >>> image_shape([(torch.zeros(3, 5, 7), 1)])
        (3, 5, 7)
    """
    with torch_state_kept():
        channels, height, width = next(_images(part)).shape
    return channels, height, width


def some_images(part: Dataset[Any] | DataLoader[Any], count: int) -> Tensor:
    """Some images ``(N, C, H, W)``, spread evenly over a data set; of a loader they are the first.

    Args:
        part: pairs of an image and a target, or a loader of them.
        count: how many, where there are as many.

    Raises:
        DataError: as `image_shape`.

    Example:
        >>> some_images([(torch.zeros(3, 5, 7), 1)] * 10, count=4).shape
        torch.Size([4, 3, 5, 7])
    """
    if isinstance(part, DataLoader):
        with torch_state_kept():
            return torch.stack(list(islice(_images(part), count)))
    size: int = len(part)  # type: ignore[arg-type]  # a map-style dataset has a length
    places = torch.linspace(0, size - 1, min(count, size)).long().tolist()
    return torch.stack([_checked(_image_in(part[place])) for place in places])


def class_names(part: Any) -> tuple[str, ...]:
    """The attribute ``classes`` of a data set, or of the data set that it wraps; () if there is none.

    Example:
        >>> class_names(torchvision.datasets.ImageFolder("animals"))
        ('cat', 'dog')
    """
    found: Iterator[Any] = (getattr(each, "classes", None) for each in _unwrapped(part))
    return next((tuple(map(str, names)) for names in found if _are_names(names)), ())


def count_classes(part: Any) -> int | None:
    """One more than the largest label, where a data set has its labels at hand; None if it has not.

    Void in label maps does not count.

    Example:
        >>> count_classes(TensorDataset(torch.zeros(3, 1, 5, 7), torch.tensor([4, 0, 2])))
        5
    """
    labels = next((found for each in _unwrapped(part) if (found := _labels(each)) is not None), None)
    if labels is None or labels.is_floating_point() or not labels.numel():
        return None
    known = labels[labels != IGNORE] if labels.dim() > 1 else labels
    return int(known.max()) + 1 if known.numel() else None


def _unwrapped(part: Any) -> Iterator[Any]:
    """The data and what it is made of: a loader's data set, the set of which a subset is."""
    while part is not None:
        yield part
        part = getattr(part, "dataset", None)


def _are_names(found: Any) -> bool:
    # Cityscapes of torchvision has tables there
    return isinstance(found, list | tuple) and len(found) > 0 and all(type(name) in (str, int) for name in found)


def _labels(part: Any) -> Tensor | None:
    if isinstance(part, TensorDataset):
        return part.tensors[-1]
    if isinstance(part, list | tuple):
        return _as_tensor([item[1] for item in part if isinstance(item, list | tuple) and len(item) > 1])
    found = getattr(part, "targets", None)
    return _as_tensor(getattr(part, "labels", None) if found is None else found)


def _as_tensor(labels: Any) -> Tensor | None:
    if isinstance(labels, list | tuple) and labels and isinstance(labels[0], Tensor):
        return torch.cat([label.flatten() for label in labels])
    try:
        return None if labels is None else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):  # words, tables, or of several lengths
        return None


def _images(part: Dataset[Any] | DataLoader[Any]) -> Iterator[Tensor]:
    if not isinstance(part, DataLoader):
        yield _checked(_image_in(SeededSet(part)[0]))
        return
    for batch in part:
        images = _image_in(batch)
        if not isinstance(images, Tensor) or images.dim() != 4:
            raise DataError(f"A loader's images must be (N, C, H, W); received {_shown(images)}.")
        yield from map(_checked, images)


def _image_in(item: Any) -> Any:
    if not isinstance(item, list | tuple) or len(item) < 2:
        raise DataError(
            f"Data must be pairs of an image and its target; received {_shown(item)}. Of two tensors make "
            "torch.utils.data.TensorDataset(images, targets)."
        )
    return item[0]


def _checked(image: Any) -> Tensor:
    if isinstance(image, np.ndarray):  # a loader makes a tensor of it
        image = torch.from_numpy(image)
    if not isinstance(image, Tensor) or image.dtype != torch.float32:
        raise DataError(
            f"Images must be tensors of float32; received {_shown(image)}. Of a data set of torchvision convert them "
            "with transform=torchvision.transforms.ToTensor(), a tensor with image.float()."
        )
    if image.dim() != 3 or not image.numel():
        raise DataError(f"Images must be (C, H, W); received {_shown(image)}.")
    return image


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}".removeprefix("builtins.")
