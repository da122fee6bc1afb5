"""Exported files are there whole, or not at all."""

from pathlib import Path

from qprune.errors import CheckpointError, ExportError
from qprune.training.writing import replaced


def replace_file(file: Path, content: bytes) -> None:
    """Write a file; one that is there is replaced when the new one is complete."""
    try:
        with replaced(file) as opened:
            opened.write(content)
    except CheckpointError as error:
        raise ExportError(f"{file} cannot be written: {error.__cause__}.") from error
