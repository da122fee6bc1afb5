"""Augmentation: torchvision's v2 transforms by name, of images and of what belongs to them."""

import inspect
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from attrs import field, frozen
from torch import Tensor

from qprune.errors import DataError
from qprune.spelling import nearest

if TYPE_CHECKING:  # imports torchvision
    from qprune.data.batchwise import Batchwise, Numbers

# Containers, which a table cannot hold; batch transforms; conversions, which are done anyway; what needs boxes.
_UNFIT = """
    CenterCrop ClampBoundingBoxes ClampKeyPoints Compose ConvertBoundingBoxFormat ConvertImageDtype CutMix
    FiveCrop Lambda LinearTransformation MixUp Normalize PILToTensor RandomApply RandomChoice RandomIoUCrop
    RandomOrder RandomResize RandomShortestSize SanitizeBoundingBoxes SanitizeKeyPoints ScaleJitter
    SetClampingMode TenCrop ToDtype ToImage ToPILImage ToPureTensor ToTensor Transform
    UniformTemporalSubsample
"""

# what Python itself says where a library did not check what it was given
_PYTHON = re.compile(
    r"not supported between instances|unsupported operand|object (?:is not|has no|cannot)|argument must be|"
    r"must be real number|can't multiply|could not convert|invalid literal|positional argument|list index"
)


@frozen(eq=False)
class Augment:
    """Transforms of pictures of bytes, drawn once for all that are given together, from torch's global generator.

    Labels are never interpolated, and padded with void. The last transforms may be such that take whole batches; those
    before them are given the pictures of one sample at a time. Both ways give the same pictures;
    only ColorJitter of whole batches differs in few values from torchvision's (`qprune.data.colour_jitter`).
    """

    transforms: tuple[Any, ...]
    rest: tuple["Batchwise", ...] = field(init=False)  # the last ones, which take whole batches
    first: tuple[Any, ...] = field(init=False)  # those before them

    @rest.default
    def _find_rest(self) -> tuple["Batchwise", ...]:
        from qprune.data.batchwise import batchwise

        found = takewhile(lambda each: each is not None, map(batchwise, reversed(self.transforms)))
        return tuple(each for each in found if each)[::-1]

    @first.default
    def _find_first(self) -> tuple[Any, ...]:
        return self.transforms[: len(self.transforms) - len(self.rest)]

    def __call__(self, *pictures: Tensor) -> tuple[Tensor, ...]:
        """Augment the images (C, H, W) and label maps (H, W) of one sample alike."""
        pictures, drawn = self.begin(*pictures)
        return tuple(self.alone(picture, drawn) for picture in pictures)

    def begin(self, *pictures: Tensor) -> tuple[tuple[Tensor, ...], list["Numbers"]]:
        """The pictures of one sample after the ``first`` transforms, and the numbers that it draws for the ``rest``."""
        pictures = transformed(self.first, pictures)
        return pictures, [transform.draw(pictures[0]) for transform in self.rest]

    def stacked(self, drawn: Sequence[Sequence["Numbers"]]) -> list[Any]:
        """What the samples of a batch drew, for each transform of the ``rest``."""
        columns = zip(*drawn, strict=True)
        return [transform.stack(column) for transform, column in zip(self.rest, columns, strict=True)]

    def finish(self, pictures: Tensor, drawn: Sequence[Any]) -> Tensor:
        """Images (N, C, H, W), or label maps (N, H, W), after the ``rest``, by what was ``stacked``.

        Without any numbers they stay as they are.
        """
        for transform, numbers in zip(self.rest if drawn else (), drawn, strict=True):
            pictures = transform.apply(pictures, numbers)
        return pictures

    def alone(self, picture: Tensor, drawn: Sequence["Numbers"]) -> Tensor:
        """One picture after the ``rest``, by the numbers that `begin` drew."""
        return self.finish(picture.unsqueeze(0), self.stacked([drawn]))[0]

    def size_after(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that the ``rest`` makes of pictures of a size."""
        for transform in self.rest:
            size = transform.size_after(size)
        return size


def transformed(transforms: Sequence[Any], pictures: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The images and label maps of one sample after transforms of torchvision."""
    from torchvision import tv_tensors

    if not transforms:
        return tuple(pictures)
    typed: list[Any] = [tv_tensors.Mask(p) if p.ndim == 2 else tv_tensors.Image(p) for p in pictures]
    for transform in transforms:
        typed = [transform(*typed)] if len(typed) == 1 else transform(*typed)
    return tuple(picture.as_subclass(Tensor) for picture in typed)


def build_augment(
    tables: Sequence[Mapping[str, Any]], shape: tuple[int, int, int] = (3, 32, 32), fixed: bool = True
) -> Augment | None:
    """Make the transforms of ``data.augment``, and try each on a blank image.

    Args:
        tables: ``{"name": class of torchvision.transforms.v2, **its own arguments}``, in the order of application.
            Enums are given by their value: ``interpolation = "bilinear"``.
        shape: (channels, height, width) of the images.
        fixed: whether transforms must keep the height and width.

    Returns:
        None where there are no tables.

    Raises:
        DataError: for an unknown class or argument, a value that torchvision refuses, or a transform that changes the
            shape or type of images; with key path and nearest name.

    Example:
        >>> build_augment([{"name": "RandomHorizontalFlip", "p": 0.25}]).transforms
        (RandomHorizontalFlip(p=0.25),)
    """
    if not tables:
        return None
    transforms = tuple(build_transform(table, f"data.augment[{i}]") for i, table in enumerate(tables))
    for i, transform in enumerate(transforms):
        shape = _tried(transform, shape, f"data.augment[{i}]", fixed)
    return Augment(transforms)


def build_transform(table: Mapping[str, Any], path: str) -> Any:
    """Make one transform of a table."""
    cls = find_transform(table.get("name"), path)
    parameters = inspect.signature(cls).parameters
    arguments = {key: value for key, value in table.items() if key != "name"}
    for key in arguments:
        if key not in parameters:
            near = nearest(key, parameters, repr) or f"; it takes {', '.join(parameters) or 'none'}"
            raise DataError(f"{path}.{key}: must be an argument of {cls.__name__}{near}.")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in arguments]
    if missing:
        raise DataError(f"{path}: {cls.__name__} needs {' and '.join(map(repr, missing))}.")
    try:
        return cls(**{key: _enum(parameters[key].default, value) for key, value in arguments.items()})
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {cls.__name__} refuses {arguments!r}: {reason(error)}") from error


def find_transform(name: object, path: str) -> Any:
    """The class of that name, of torchvision.transforms.v2 or of `qprune.data.transforms`."""
    from torchvision.transforms import v2

    from qprune.data import transforms

    classes = {
        key: value
        for key, value in (vars(transforms) | vars(v2)).items()
        if inspect.isclass(value) and issubclass(value, v2.Transform)
    }
    known = sorted(classes.keys() - set(_UNFIT.split()))
    if name in known:
        return classes[str(name)]
    if name in classes:
        raise DataError(
            f"{path}.name: {name!r} cannot augment single images from a table; use one of {', '.join(known)}."
        )
    near = nearest(name, known, repr) or f"; known are {', '.join(known)}"
    raise DataError(f"{path}.name: must be a class of torchvision.transforms.v2; received {name!r}{near}.")


def reason(error: Exception) -> str:
    """The text of a library's error; a sentence of our own where the text is merely Python's."""
    text = str(error)
    return "a value is of the wrong kind" if _PYTHON.search(text) or not text else text


def _tried(transform: Any, shape: tuple[int, int, int], path: str, fixed: bool) -> tuple[int, int, int]:
    """The shape that a transform gives images of this one."""
    name, state = type(transform).__name__, torch.get_rng_state()
    try:
        result = transform(torch.zeros(shape, dtype=torch.uint8))
    except Exception as error:  # whatever torchvision meets first: a crop that is too large, a channel count
        raise DataError(f"{path}: {name} fails on images of shape {shape}: {reason(error)}") from error
    finally:
        torch.set_rng_state(state)
    kept = tuple(result.shape) == shape if fixed else result.ndim == 3 and result.shape[0] == shape[0]
    if not kept or result.dtype != torch.uint8:
        what = f"shape {shape}" if fixed else "channels"
        made = f"shape {tuple(result.shape)} and type {str(result.dtype).removeprefix('torch.')}"
        raise DataError(f"{path}: {name} must keep {what} and type uint8, as evaluation does; it made {made}.")
    channels, height, width = result.shape
    return channels, height, width


def _enum(default: object, value: object) -> object:
    return type(default)(value) if isinstance(default, Enum) and isinstance(value, str) else value
