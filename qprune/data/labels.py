"""Label maps: PNG files whose pixels are class ids, to labels 0, 1, 2 ... with void at 255."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from attrs import field, frozen

from qprune.data.decode import Pixels, named, open_image, read_size, upright
from qprune.data.info import IGNORE
from qprune.errors import DataError

_UNKNOWN = -1


@frozen(eq=False)
class LabelIds:
    """Maps the ids in a file to classes."""

    labels: Mapping[int, int]  # id -> class; 255 is void in any case
    strict: bool = True  # refuse ids that are not among labels; else they are void
    table: np.ndarray = field(init=False)

    @table.default
    def _make_table(self) -> np.ndarray:
        table = np.full(256, _UNKNOWN if self.strict else IGNORE, np.int16)
        for number, label in ({IGNORE: IGNORE} | dict(self.labels)).items():
            table[number] = label
        return table


def read_labels(path: Path, ids: LabelIds) -> Pixels:
    """Decode one label map; of a palette image the indices count, not the colours."""
    with named(path), open_image(path) as image:
        _check_mode(image.mode)
        numbers = np.asarray(upright(image)).astype(np.uint8)
        labels = ids.table[numbers]
        if labels.min() == _UNKNOWN:
            classes = sorted(number for number, label in ids.labels.items() if label != IGNORE)
            void = sorted({IGNORE} | {number for number, label in ids.labels.items() if label == IGNORE})
            known = f"{classes[0]} .. {classes[-1]}, or {' or '.join(map(str, void))} for void"
            raise DataError(f"labels must be in {known}; received {numbers[labels == _UNKNOWN].min()}.")
        return labels.astype(np.uint8)


def read_label_size(path: Path) -> tuple[int, int]:
    """(height, width) of a label map from its header, which must say that pixels are ids."""
    with named(path), open_image(path) as image:
        _check_mode(image.mode)
    return read_size(path)


def _check_mode(mode: str) -> None:
    if mode not in ("L", "P", "1"):
        raise DataError(
            f"labels must be 8-bit class ids, grey or palette; received mode {mode!r}. Write each class as its id."
        )
