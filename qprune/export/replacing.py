"""Files that are there whole, or not at all."""

import os
from pathlib import Path

from qprune.errors import ExportError


def replace_file(file: Path, content: bytes) -> None:
    """Write a file; one that is there is replaced when the new one is complete.

    Raises:
        ExportError: if it cannot be written.

    Example:
        >>> replace_file(Path("model.onnx"), model.SerializeToString())
    """
    beside = file.with_name(f".{file.name}.writing")
    try:
        beside.write_bytes(content)
        os.replace(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ExportError(f"{file} cannot be written: {error}.") from error
