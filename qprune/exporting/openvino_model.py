"""An ONNX file in a second runtime: OpenVINO on the CPU."""

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qprune.errors import ExportError
from qprune.exporting.onnx_file import read_onnx


class OpenVinoModel(nn.Module):
    """Runs an ONNX file in OpenVINO's CPU plugin, in float32 where it is not in integers.

    It is compiled anew for each shape of its inputs, as one would for a device: plugins do more with shapes they know.

    Args:
        file: a path, or the bytes of a model.
        threads: how many threads compute; 0 leaves that to the runtime.

    Raises:
        ExportError: if the package is not installed, or the file is none that `read_onnx` reads.

    Source: https://docs.openvino.ai

    Example:
        >>> OpenVinoModel("model.onnx")(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, file: str | os.PathLike[str] | bytes, *, threads: int = 0) -> None:
        super().__init__()
        openvino = _import_openvino()
        self.runtime = f"openvino {openvino.__version__.partition('-')[0]}"
        self.options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self.options["INFERENCE_NUM_THREADS"] = threads
        self.core = openvino.Core()
        parsed = read_onnx(file)
        self.outputs = tuple(each.name for each in parsed.graph.output)
        self._content = parsed.SerializeToString()
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}

    def forward(self, *inputs: Tensor) -> Any:
        """Run it; an ExportError says what OpenVINO does not know, or that it fails on such inputs."""
        arrays = [np.ascontiguousarray(x.detach().cpu().float().numpy()) for x in inputs]
        try:
            results = self._for([array.shape for array in arrays])(arrays)
            tensors = tuple(torch.from_numpy(results[place].copy()) for place in range(len(self.outputs)))
        except Exception as error:  # it raises RuntimeError for all that it does not know
            raise ExportError(f"OpenVINO cannot run the file: {_told(error)}") from error
        return tensors[0] if len(tensors) == 1 else tensors

    def _for(self, shapes: Sequence[tuple[int, ...]]) -> Any:
        key = tuple(shapes)
        if key not in self._compiled:
            model = self.core.read_model(self._content)
            model.reshape(dict(enumerate(map(list, shapes))))
            self._compiled[key] = self.core.compile_model(model, "CPU", self.options)
        return self._compiled[key]


def _told(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _import_openvino() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise ExportError(
            f'Running a file in OpenVINO needs the extra "openvino": pip install "qprune[openvino]" ({error}).'
        ) from error
    return openvino
