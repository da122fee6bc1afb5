"""Any exported file as a network that the rest of qprune can run and score."""

import os
from pathlib import Path

from qprune.export.onnx_file import read_onnx
from qprune.export.qonnx import DOMAIN, runnable
from qprune.export.running import OnnxModel
from qprune.export.torch_program import SUFFIX, TorchProgram, is_program


def file_model(path: str | os.PathLike[str], *, trusted: bool = False) -> OnnxModel | TorchProgram:
    """Open a program, an ONNX file or a QONNX file, of which ``Quant`` is explained to the runtime.

    Args:
        path: the file; what it is, its content tells.
        trusted: whether a program of `torch.export` may be opened, see `TorchProgram`.

    Raises:
        ExportError: if it cannot be run, or is a program and not trusted.

    Example:
        >>> file_model("model.onnx")(images)
    """
    if is_exported_program(path):
        return TorchProgram(path, trusted=trusted)
    model = read_onnx(path)
    if any(each.domain == DOMAIN for each in model.opset_import):
        opened = OnnxModel(runnable(model).SerializeToString())
        opened.name = os.fspath(path)
        return opened
    return OnnxModel(path)


def is_exported_program(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a program of `torch.export`, whatever it is called, or is called like one.

    Example:
        >>> is_exported_program("model.pt2")
        True
    """
    return Path(path).suffix == SUFFIX or is_program(path)
