"""ONNX files of integers, as a format."""

import copy
import json
import os
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from torch import nn

from qprune.export.about import ABOUT
from qprune.export.comparing import Comparison, Inputs, environment
from qprune.export.file_format import Format, Made
from qprune.export.running import OnnxModel, Operators
from qprune.export.writing import Written, write_network
from qprune.layers import BiasQuant, FakeQuant


class Onnx(Format):
    """An ONNX file of standard operators, with integers where the network has quantizers; see `write_network`.

    Example:
        >>> Onnx().open("model.onnx")(images)
    """

    suffix, title = ".onnx", "an ONNX file"

    def write(
        self, net: nn.Module, inputs: Inputs, *, storage: str, dynamic_size: bool | None, about: Mapping[str, Any]
    ) -> Made:
        """Write the network with its integers, which are compared, too."""
        written = write_network(net, inputs, storage=storage, dynamic_size=dynamic_size)
        return evolve(made_of(written, inputs, about), written=written)

    def _open(self, path: str | os.PathLike[str]) -> OnnxModel:
        return OnnxModel(path)

    def without_quantizers(self, net: nn.Module, inputs: Inputs, dynamic_size: bool | None) -> Comparison:
        """What the network computes in real numbers, and an ONNX file of that.

        With quantizers a difference may be that of a sum which fell to the other side of a step, or anything.
        """
        plain = copy.deepcopy(net)
        for part in plain.modules():
            if isinstance(part, (FakeQuant, BiasQuant)):
                part.active.fill_(False)
        written = write_network(plain, inputs, dynamic_size=dynamic_size)
        return Comparison(plain, OnnxModel(written.model.SerializeToString()), written)


def made_of(written: Written, inputs: Inputs, about: Mapping[str, Any]) -> Made:
    """The file of a model, and what ONNX Runtime makes of it."""
    if about:
        entry = written.model.metadata_props.add()
        entry.key, entry.value = ABOUT, json.dumps(about)
    content = bytes(written.model.SerializeToString())
    return Made(written.net, content, OnnxModel(content), environment(), _operators(content, inputs))


def _operators(content: bytes, inputs: Inputs) -> Operators:
    model = OnnxModel(content, profile=True)
    model(*inputs)
    return model.operators()
