"""`Kept`: measured numbers in a plain file, so that an interrupted measurement is taken up again."""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from qprune.errors import CheckpointError
from qprune.regular_files import read_regular
from qprune.training.writing import replaced

FORMAT = 1
MOST = 2**26  # bytes; a measurement is a line of a hundred
KINDS = ("ratio", "bits")  # of sensitivity

Setting = tuple[str, str, float]  # the name of a group, one of the kinds, and the ratio or the number of bits


class Kept:
    """Measured numbers, each known by its setting; every new one is written at once.

    One file may hold those of several networks and sets of images, each by a key for all that the numbers depend on
    beside the setting. Without a path they are kept in memory alone. A file with other ``kinds`` in the second place of
    its settings is of something else, and refused.
    """

    def __init__(self, path: Path | None, key: str, kinds: Collection[str] = KINDS) -> None:
        self.path, self.key = path, key
        self._of_all: dict[str, dict[Setting, float]] = {}
        if path is not None and path.exists():
            self._of_all = _read(path, kinds)
        self._own = self._of_all.setdefault(key, {})

    def __contains__(self, setting: Setting) -> bool:
        return setting in self._own

    def __getitem__(self, setting: Setting) -> float:
        return self._own[setting]

    def __setitem__(self, setting: Setting, number: float) -> None:
        self.update({setting: number})

    def update(self, numbers: Mapping[Setting, float]) -> None:
        """Add several at once, which writes the file once."""
        self._own.update(numbers)
        if self.path is not None:
            with replaced(self.path) as file:
                file.write(_text(self._of_all).encode())

    def __len__(self) -> int:
        return len(self._own)


def _text(of_all: Mapping[str, Mapping[Setting, float]]) -> str:
    """One line for each measurement, for whoever reads the file, or what git says of it."""
    blocks = []
    for key, own in of_all.items():
        lines = ",\n".join(f"  {json.dumps([*setting, value])}" for setting, value in own.items())
        blocks.append(f"{json.dumps(key)}: [\n{lines}\n ]")
    return f'{{"format": {FORMAT}, "measured": {{\n ' + ",\n ".join(blocks) + "\n}}\n"


def _read(path: Path, kinds: Collection[str]) -> dict[str, dict[Setting, float]]:
    try:
        content = json.loads(read_regular(path, MOST))
        return {str(key): _settings(lines, kinds) for key, lines in _measured(content).items()}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged, or of something else"
        raise CheckpointError(
            f"{path} cannot be used as a file of measurements: {reason}. Move it away, and all is measured anew."
        ) from error


def _measured(content: Any) -> dict[str, Any]:
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or not isinstance(content.get("measured"), dict)
    ):
        raise ValueError("another form")
    measured: dict[str, Any] = content["measured"]
    return measured


def _settings(lines: Any, kinds: Collection[str]) -> dict[Setting, float]:
    settings = {}
    for group, kind, level, value in lines:
        good = isinstance(group, str) and kind in kinds and _is_number(level) and _is_number(value)
        if not good:
            raise ValueError("another form")
        settings[(group, kind, level)] = float(value)
    return settings


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
