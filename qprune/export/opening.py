"""Any exported file as a network that the rest of qprune can run and score."""

import os
from pathlib import Path

from qprune.export.packages import import_onnx
from qprune.export.qonnx import DOMAIN, runnable
from qprune.export.running import OnnxModel
from qprune.export.torch_program import SUFFIX, TorchProgram


def file_model(path: str | os.PathLike[str]) -> OnnxModel | TorchProgram:
    """Open a program, an ONNX file or a QONNX file, of which ``Quant`` is explained to the runtime.

    Raises:
        ExportError: if it cannot be run.

    Example:
        >>> file_model("model.pt2")(images)
    """
    if Path(path).suffix == SUFFIX:
        return TorchProgram(path)
    try:
        model = import_onnx().load(path)
    except Exception:  # the runtime says what is wrong with it
        return OnnxModel(path)
    told = any(each.domain == DOMAIN for each in model.opset_import)
    return OnnxModel(runnable(model).SerializeToString() if told else path)
