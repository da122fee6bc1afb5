"""The parts of a run's data, and those that the user hands over instead of a spec's."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch.utils.data import DataLoader, IterableDataset

from qprune.data.info import DataInfo
from qprune.errors import DataError
from qprune.spelling import nearest

PARTS = ("train", "val", "test")
_USE = {"train": "train on", "val": "choose on", "test": "score on"}


@frozen(eq=False)
class Splits:
    """The training, validation and test data of one run.

    Attributes:
        info: what is known about the data; None as long as nobody asked that of the user's own.
        train: map-style dataset, or the user's own loader; None where only another part was needed.
        val: the same for choosing, None where nothing is chosen.
        test: the same for reporting, None where the user gave none.

    Example:
        >>> Splits(info=None, train=my_set).val is None
        True
    """

    info: DataInfo | None
    train: Any
    val: Any = None
    test: Any = None

    @property
    def facts(self) -> DataInfo:
        """``info``, where it must be there."""
        assert self.info is not None
        return self.info


def wrap_data(data: Any, *, trains: bool = True) -> Splits:
    """Take datasets or loaders of the user's own; loaders are used as they are.

    Args:
        data: ``{"train": ..., "val": ..., "test": ...}``, or ``(train, val)``, or ``(train, val, test)``; each a
            map-style dataset (a list of pairs is one), a DataLoader, or None. `Splits` pass through.
        trains: whether ``"train"`` must be there.

    Raises:
        DataError: for another form, an unknown key, a part that is empty, no training data, or an iterable dataset
            outside a loader.

    Example:
        >>> wrap_data((train_set, val_set)).val is val_set
        True
    """
    if isinstance(data, Splits):
        return data
    parts = _as_dict(data)
    for name, part in parts.items():
        _check_part(name, part)
    if trains and parts.get("train") is None:
        raise DataError('data must have training data; received none. Give {"train": ..., "val": ..., "test": ...}.')
    return Splits(info=None, train=parts.pop("train", None), **parts)


def _as_dict(data: Any) -> dict[str, Any]:
    if isinstance(data, tuple) and len(data) in (2, 3):
        return dict(zip(PARTS, data, strict=False))
    if not isinstance(data, Mapping):
        forms = '{"train": ..., "val": ..., "test": ...}, (train, val) or (train, val, test)'
        raise DataError(f"data must be {forms}; received {type(data).__name__}.")
    for key in data:
        if key not in PARTS:
            raise DataError(
                f'data has the keys "train", "val" and "test"; received {key!r}{nearest(key, PARTS, repr)}.'
            )
    return dict(data)


def _check_part(name: str, part: Any) -> None:
    if part is None:
        return
    if isinstance(part, DataLoader):
        _check_filled(name, part)
        return
    if isinstance(part, IterableDataset) or not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
        raise DataError(
            f"data[{name!r}] must be a DataLoader or a dataset with a length and items; "
            f"received {type(part).__name__}. Put it into a DataLoader."
        )
    _check_filled(name, part)


def _check_filled(name: str, part: Any) -> None:
    try:
        count = len(part)
    except TypeError:  # a loader of a stream may not know
        return
    if not count:
        raise DataError(f"data[{name!r}] is empty: there is nothing in it to {_USE[name]}. Leave it out, or fill it.")
