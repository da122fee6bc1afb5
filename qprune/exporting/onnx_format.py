"""ONNX files of integers, as a format."""

import json
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from qprune.exporting.about import ABOUT
from qprune.exporting.comparing import Inputs, environment
from qprune.exporting.file_format import Format, Made
from qprune.exporting.running import OnnxModel, Operators
from qprune.exporting.writing import Written, write_network


class Onnx(Format):
    """An ONNX file of standard operators, with integers where the network has quantizers; see `write_network`."""

    suffix, title, stores_integers = ".onnx", "an ONNX file", True

    def write(
        self, net: nn.Module, inputs: Inputs, *, storage: str, dynamic_size: bool | None, about: Mapping[str, Any]
    ) -> Made:
        """Write the network with its integers, which are compared, too."""
        return made_of(write_network(net, inputs, storage=storage, dynamic_size=dynamic_size), inputs, about)

    def open(self, path: str | os.PathLike[str], *, trusted: bool = False) -> OnnxModel:
        """Open it in ONNX Runtime; it is data, and needs no trust."""
        return OnnxModel(path)


def made_of(written: Written, inputs: Inputs, about: Mapping[str, Any]) -> Made:
    """The file of a model, and what ONNX Runtime makes of it."""
    if about:
        entry = written.model.metadata_props.add()
        entry.key, entry.value = ABOUT, json.dumps(about)
    content = bytes(written.model.SerializeToString())
    operators = partial(_operators, content, inputs)
    return Made(written.net, content, OnnxModel(content), environment(), operators, written)


def _operators(content: bytes, inputs: Inputs) -> Operators:
    model = OnnxModel(content, profile=True)
    model(*inputs)
    return model.operators()
