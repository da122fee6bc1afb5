"""``classes.toml``: the names of a folder's classes, their colours, and which id is void."""

from pathlib import Path
from typing import Any

from attrs import frozen

from qprune.data.info import IGNORE
from qprune.data.palettes import Colour
from qprune.errors import DataError
from qprune.regular_files import read_regular
from qprune.spec import parse_toml
from qprune.spec.values import shown
from qprune.spelling import nearest

NAME = "classes.toml"
LARGEST = 2**20  # bytes; 255 names and colours take a few thousand
_KEYS = ("names", "palette", "ignore")


@frozen
class ClassFile:
    """The content of a ``classes.toml``."""

    names: tuple[str, ...]  # one per class; the id is the position
    palette: tuple[Colour, ...]  # one colour per class
    ignore: int | None = None  # the id of void besides 255; None where there is none

    @property
    def labels(self) -> dict[int, int]:
        """Id to label."""
        return {i: i for i in range(len(self.names))} | ({} if self.ignore is None else {self.ignore: IGNORE})


def read_class_file(root: Path) -> ClassFile:
    """Read ``root/classes.toml``: ``names``, and where wanted ``palette`` and ``ignore``."""
    path = root / NAME
    table = _table(path)
    for key in table:
        if key not in _KEYS:
            raise DataError(
                f"{path}: has the keys names, palette and ignore; received {shown(key)}{nearest(key, _KEYS, repr)}."
            )
    names = table.get("names")
    _must(path, "names", names, _are_names(names), "a list of 2 to 255 different names")
    assert isinstance(names, list)
    palette, ignore = table.get("palette", [list(colour) for colour in usual_palette(len(names))]), table.get("ignore")
    _must(path, "palette", palette, _are_colours(palette, len(names)), f"{len(names)} colours [red, green, blue]")
    fits = ignore is None or (_is_byte(ignore) and ignore >= len(names))
    _must(path, "ignore", ignore, fits, f"an id from {len(names)} to 255, past those of the classes")
    return ClassFile(tuple(names), tuple(tuple(colour) for colour in palette), ignore)


def usual_palette(count: int) -> tuple[Colour, ...]:
    """The colour map of PASCAL VOC without black: bits of a number set bits of a channel, from the highest down."""
    return tuple((_channel(n, 0), _channel(n, 1), _channel(n, 2)) for n in range(1, count + 1))


def _channel(number: int, channel: int) -> int:
    return sum((number >> (3 * k + channel) & 1) << (7 - k) for k in range(8))


def _table(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(read_regular(path, LARGEST).decode())
    except FileNotFoundError:
        raise DataError(
            f'{path}: must name the classes of data.name = "segmentation", as names = ["road", "sky"]; there is none.'
        ) from None
    except OSError as error:
        raise DataError(f"{path}: must be a TOML file; {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be a TOML file, in UTF-8; received another text.") from error
    except ValueError as error:
        raise DataError(f"{path}: must be a TOML file; it {error}.") from error


def _must(path: Path, key: str, value: object, holds: bool, be: str) -> None:
    if not holds:
        raise DataError(f"{path}: {key} must be {be}; received {shown(value)}.")


def _are_names(names: object) -> bool:
    return (
        isinstance(names, list)
        and all(isinstance(name, str) and name for name in names)
        and 2 <= len(set(names)) == len(names) <= IGNORE
    )


def _are_colours(palette: object, count: int) -> bool:
    return (
        isinstance(palette, list)
        and len(palette) == count
        and all(isinstance(c, list) and len(c) == 3 and all(map(_is_byte, c)) for c in palette)
    )


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= IGNORE
