"""`export_network`: writes the file, runs it, and says how equal it is."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qprune.errors import ExportError
from qprune.export.certificate import Certificate
from qprune.export.comparing import Comparison, Inputs, environment, inputs_like
from qprune.export.running import ABOUT, OnnxModel
from qprune.export.writing import Written, write_network
from qprune.report import summarize
from qprune.zoo import deployed


def export_network(
    net: nn.Module,
    path: str | os.PathLike[str],
    example: Any,
    *,
    images: Mapping[str, Tensor] | None = None,
    storage: str = "int8",
    dynamic_size: bool | None = None,
    about: Mapping[str, Any] | None = None,
) -> Certificate:
    """Write a network as an ONNX file, run both on the same inputs, and count what is equal.

    Args:
        net: the network. It is not touched, but for its mode, which is restored.
        path: where to; a file that is there is replaced.
        example: an input: a tensor or a tuple of them, of real values where there are any.
        images: more inputs to compare on, by what they are called.
        storage: as for `write_network`.
        dynamic_size: as for `write_network`.
        about: what else the file is to hold, as plain data.

    Raises:
        ExportError: as for `write_network`, or if the file cannot be written.
    """
    inputs = tuple(x.detach().cpu() for x in (example if isinstance(example, tuple) else (example,)))
    written = write_network(net, inputs, storage=storage, dynamic_size=dynamic_size)
    file = Path(path)
    _save(written, file, about or {})
    tried = inputs_like(inputs) | {name: (each,) for name, each in (images or {}).items()}
    comparison = _compared(deployed(net), written, file, tried)
    outputs, quantizers = comparison.agreements()
    return Certificate(
        file=str(file),
        bytes=file.stat().st_size,
        packed_bytes=_packed_bytes(written.net, inputs),
        environment=environment(),
        inputs={name: len(each[0]) for name, each in tried.items()},
        outputs=outputs,
        quantizers=quantizers,
        predictions=comparison.classes.share(),
        iou=comparison.classes.iou(),
        operators=_operators(file, inputs),
        real_layers={layer.path: layer.reason for layer in written.layers if not layer.integer},
    )


def _save(written: Written, file: Path, about: Mapping[str, Any]) -> None:
    if about:
        entry = written.model.metadata_props.add()
        entry.key, entry.value = ABOUT, json.dumps(about)
    beside = file.with_name(f".{file.name}.writing")
    try:
        beside.write_bytes(written.model.SerializeToString())
        os.replace(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ExportError(f"{file} cannot be written: {error}.") from error


def _compared(net: nn.Module, written: Written, file: Path, tried: Mapping[str, Inputs]) -> Comparison:
    home = next((p.device for p in net.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in net.modules()}
    comparison = Comparison(net.cpu().eval(), written, file)
    try:
        for inputs in tried.values():
            comparison.add(inputs)
    finally:
        net.to(home)
        for module, training in modes.items():
            module.training = training
    return comparison


def _operators(file: Path, inputs: Inputs) -> Any:
    model = OnnxModel(file, profile=True)
    model(*inputs)
    return model.operators()


def _packed_bytes(net: nn.Module, inputs: Inputs) -> int | None:
    if len(inputs) != 1 or inputs[0].dim() != 4:
        return None
    return summarize(net, tuple(inputs[0].shape[1:])).total.packed_bytes
