"""`export_network`: writes the file, runs it, and says how equal it is."""

import copy
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from qprune.errors import ExportError
from qprune.export.certificate import Certificate, Environment
from qprune.export.comparing import Comparison, Inputs, environment, inputs_like
from qprune.export.qonnx import runnable, write_qonnx
from qprune.export.replacing import replace_file
from qprune.export.running import ABOUT, OnnxModel, Operators
from qprune.export.torch_program import SUFFIX, TorchProgram, write_program
from qprune.export.writing import STORAGES, Written, write_network
from qprune.layers import BiasQuant, FakeQuant
from qprune.report import summarize
from qprune.zoo import deployed

DIALECTS = ("onnx", "qonnx")


def export_network(
    net: nn.Module,
    path: str | os.PathLike[str],
    example: Any,
    *,
    images: Mapping[str, Tensor] | None = None,
    storage: str = "int8",
    dynamic_size: bool | None = None,
    dialect: str = "onnx",
    about: Mapping[str, Any] | None = None,
) -> Certificate:
    """Write a network as a file, run both on the same inputs, and count what is equal.

    Args:
        net: the network. It is not touched, but for its mode, which is restored.
        path: where to; a file that is there is replaced. ``.pt2`` makes a program of `torch.export`, see
            `qprune.export.write_program`, any other ending an ONNX file.
        example: an input: a tensor or a tuple of them, of real values where there are any.
        images: more inputs to compare on, by what they are called.
        storage: as for `write_network`.
        dynamic_size: as for `write_network`.
        dialect: ``"onnx"``, or ``"qonnx"``: see `qprune.export.write_qonnx`.
        about: what else the file is to hold, as plain data.

    Raises:
        ExportError: as for `write_network`; if the file cannot be written; or if it computes something else than the
            network does while nothing is quantized. Then there is no file.
    """
    inputs = _inputs(example)
    file, program = Path(path), Path(path).suffix == SUFFIX
    _check_path(file)
    _check_options(storage, dynamic_size, dialect, program)
    tried = inputs_like(inputs) | {name: (each,) for name, each in (images or {}).items()}
    if program:
        made = _as_program(net, inputs, dynamic_size, about or {})
    elif dialect == "qonnx":
        made = _as_qonnx(net, inputs, about or {})
    else:
        made = _as_onnx(net, inputs, storage, dynamic_size, about or {})
    _compare(made.comparison, tried)
    if not made.comparison.rounds_alone and not program:
        _compare_without_quantizers(made.net, inputs, dynamic_size, tried)
    outputs, quantizers = made.comparison.agreements()
    replace_file(file, made.content)
    return Certificate(
        file=str(file),
        bytes=len(made.content),
        packed_bytes=_packed_bytes(made.net, inputs),
        environment=made.environment,
        inputs={name: len(each[0]) for name, each in tried.items()},
        outputs=outputs,
        quantizers=quantizers,
        predictions=made.comparison.classes.share(),
        iou=made.comparison.classes.iou(),
        operators=made.operators,
        real_layers=made.real_layers,
    )


@frozen(eq=False)
class _Made:
    """The content of a file, and what is known of it."""

    net: nn.Module
    content: bytes
    comparison: Comparison
    environment: Environment
    operators: Operators
    real_layers: Mapping[str, str] = field(factory=dict)


def _inputs(example: Any) -> Inputs:
    given = example if isinstance(example, (tuple, list)) else (example,)
    for x in given:
        if not isinstance(x, Tensor) or x.dim() == 0:
            kind = "a tensor of one number" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ExportError(f"example must be a tensor of images, (N, ...), or a tuple of such; received {kind}.")
    return tuple(x.detach().cpu() for x in given)


def _check_path(file: Path) -> None:
    if file.suffix not in (".onnx", SUFFIX):
        raise ExportError(
            f'{file} is to be an ONNX file (its name ends in ".onnx") or a program of torch.export ("{SUFFIX}"); '
            f'received a name that ends in "{file.suffix}".'
        )
    if not file.parent.is_dir():
        raise ExportError(f"{file} cannot be written: there is no folder {file.parent}.")


def _check_options(storage: str, dynamic_size: bool | None, dialect: str, program: bool) -> None:
    if dialect not in DIALECTS:
        raise ExportError(f'dialect must be "onnx" or "qonnx"; received {dialect!r}.')
    if program and dialect != "onnx":
        raise ExportError(f'dialect "{dialect}" is one of ONNX files; a {SUFFIX} file has none.')
    if (program or dialect == "qonnx") and storage in STORAGES[1:]:
        raise ExportError(f'storage = "{storage}" is for ONNX files of integers: leave it out here.')
    if dialect == "qonnx" and dynamic_size:
        raise ExportError("A QONNX file has the shapes of the example: leave dynamic_size out.")


def _as_onnx(
    net: nn.Module, inputs: Inputs, storage: str, dynamic_size: bool | None, about: Mapping[str, Any]
) -> _Made:
    written = write_network(net, inputs, storage=storage, dynamic_size=dynamic_size)
    content = _content(written, about)
    reasons = {layer.path: layer.reason for layer in written.layers if not layer.integer}
    comparison = Comparison(deployed(net), OnnxModel(content), written)
    return _Made(written.net, content, comparison, environment(), _operators(content, inputs), reasons)


def _as_qonnx(net: nn.Module, inputs: Inputs, about: Mapping[str, Any]) -> _Made:
    written = write_qonnx(net, inputs)
    content = _content(written, about)
    told = runnable(written.model).SerializeToString()
    comparison = Comparison(deployed(net), OnnxModel(told))
    return _Made(written.net, content, comparison, environment(), _operators(told, inputs))


def _as_program(net: nn.Module, inputs: Inputs, dynamic_size: bool | None, about: Mapping[str, Any]) -> _Made:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{SUFFIX}"
        small = write_program(net, file, inputs, dynamic_size=dynamic_size, about=about)
        program = TorchProgram(file, trusted=True)  # it has just been written
        content = file.read_bytes()
    return _Made(small, content, Comparison(deployed(net), program), program.environment, program.operators())


def _content(written: Written, about: Mapping[str, Any]) -> bytes:
    if about:
        entry = written.model.metadata_props.add()
        entry.key, entry.value = ABOUT, json.dumps(about)
    return bytes(written.model.SerializeToString())


def _compare_without_quantizers(
    net: nn.Module, inputs: Inputs, dynamic_size: bool | None, tried: Mapping[str, Inputs]
) -> None:
    """Write and compare what the network computes in real numbers, of which nothing but rounding may differ.

    With quantizers a difference may be that of a sum which fell to the other side of a step, or anything.
    """
    plain = copy.deepcopy(net)
    for part in plain.modules():
        if isinstance(part, (FakeQuant, BiasQuant)):
            part.active.fill_(False)
    written = write_network(plain, inputs, dynamic_size=dynamic_size)
    _compare(Comparison(plain, OnnxModel(written.model.SerializeToString()), written), tried)


def _compare(comparison: Comparison, tried: Mapping[str, Inputs]) -> None:
    net = comparison.net
    home = next((p.device for p in net.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in net.modules()}
    net.cpu().eval()
    try:
        for inputs in tried.values():
            comparison.add(inputs)
    finally:
        net.to(home)
        for module, training in modes.items():
            module.training = training


def _operators(content: bytes, inputs: Inputs) -> Operators:
    model = OnnxModel(content, profile=True)
    model(*inputs)
    return model.operators()


def _packed_bytes(net: nn.Module, inputs: Inputs) -> int | None:
    if len(inputs) != 1 or inputs[0].dim() != 4:
        return None
    return summarize(net, tuple(inputs[0].shape[1:])).total.packed_bytes
