"""The formats of exported files: which one to write, and which one a file has."""

import os
from pathlib import Path
from typing import Any

from qprune.errors import ExportError
from qprune.exporting.file_format import Format
from qprune.exporting.onnx_format import Onnx
from qprune.exporting.qonnx import Qonnx
from qprune.exporting.torch_program import Program

FORMATS: dict[str, Format] = {"onnx": Onnx(), "qonnx": Qonnx(), "program": Program()}
DIALECTS = tuple(name for name, each in FORMATS.items() if each.suffix == Onnx.suffix)


def format_to_write(path: str | os.PathLike[str], dialect: str = "onnx") -> Format:
    """The format that a file is to have, by the ending of its name; of ONNX files by the dialect, too."""
    suffix = Path(path).suffix
    if suffix not in {each.suffix for each in FORMATS.values()}:
        titles = dict.fromkeys(f'{each.title} ("{each.suffix}")' for each in FORMATS.values())
        kinds = " or ".join(titles).replace("(", "(its name ends in ", 1)
        raise ExportError(f'{path} is to be {kinds}; received a name that ends in "{suffix}".')
    if dialect not in DIALECTS:
        known = " or ".join(f'"{name}"' for name in DIALECTS)
        raise ExportError(f"dialect must be {known}; received {dialect!r}.")
    if FORMATS[dialect].suffix == suffix:
        return FORMATS[dialect]
    if dialect != DIALECTS[0]:
        raise ExportError(f'dialect "{dialect}" is one of ONNX files; a {suffix} file has none.')
    return next(each for each in FORMATS.values() if each.suffix == suffix)


def format_of(path: str | os.PathLike[str]) -> Format | None:
    """The format of a file: the one that recognizes its content, else the one that its name ends in; None for neither.

    The content is asked first, by all formats, so that no name hides a file that runs code.
    """
    recognized = (each for each in FORMATS.values() if each.recognizes(path))
    named = (each for each in FORMATS.values() if each.suffix == Path(path).suffix)
    return next(recognized, next(named, None))


def file_model(path: str | os.PathLike[str], *, trusted: bool = False) -> Any:
    """Open an exported file as a network that the rest of qprune can run and score.

    Args:
        path: the file. It has the format that `format_of` tells, or is an ONNX file.
        trusted: whether a program of `torch.export` may be opened, see `TorchProgram`.

    Raises:
        ExportError: if it cannot be run, or is a program and not trusted.

    Example:
        >>> file_model("model.onnx")(images)
    """
    return (format_of(path) or FORMATS["onnx"]).open(path, trusted=trusted)
