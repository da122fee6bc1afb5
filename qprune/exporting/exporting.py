"""`export_network`: writes the file, runs it, and says how equal it is."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qprune.costs import summarize
from qprune.errors import ExportError
from qprune.exporting.certificate import Certificate, Elsewhere
from qprune.exporting.comparing import Comparison, Inputs, inputs_like
from qprune.exporting.formats import format_to_write
from qprune.exporting.openvino_model import OpenVinoModel
from qprune.exporting.replacing import replace_file
from qprune.exporting.writing import STORAGES
from qprune.shrinking import evaluating
from qprune.zoo import deployed

# Other runtimes that may run a file beside ONNX Runtime.
RUNTIMES: Mapping[str, type[OpenVinoModel]] = {"openvino": OpenVinoModel}


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
    also: Sequence[str] = (),
) -> Certificate:
    """Write a network as a file, run both on the same inputs, and count what is equal.

    What is given is as for `qprune.export`, and ``images``, more inputs to compare on, by what they are called, and
    ``about``, what else the file is to hold, as plain data. The network is not touched, but for its mode.

    Raises:
        ExportError: as for `write_network`; if the file cannot be written; or if it computes something else than the
            network does while nothing is quantized. Then there is no file.
    """
    inputs, file = _inputs(example), Path(path)
    chosen = format_to_write(file, dialect)
    if not file.parent.is_dir():
        raise ExportError(f"{file} cannot be written: there is no folder {file.parent}.")
    if unknown := [name for name in also if name not in RUNTIMES]:
        raise ExportError(f'also must be among {", ".join(RUNTIMES)}; received "{unknown[0]}".')
    if also and not chosen.stores_integers:
        raise ExportError(f"{', '.join(also)} cannot run such files: export an ONNX file.")
    if storage in STORAGES[1:] and not chosen.stores_integers:
        raise ExportError(f'storage = "{storage}" is for ONNX files of integers: leave it out here.')
    tried = inputs_like(inputs) | {name: (each,) for name, each in (images or {}).items()}
    made = chosen.write(net, inputs, storage=storage, dynamic_size=dynamic_size, about=about or {})
    comparison = Comparison(deployed(net), made.model, made.written)
    _compare(comparison, tried)
    plain = None if comparison.rounds_alone else chosen.without_quantizers(made.net, inputs, dynamic_size)
    if plain is not None:
        _compare(plain, tried)
    if made.written is not None and made.written.resizable:
        with _in_eval((plain or comparison).net):
            (plain or comparison).check_other_sizes(inputs)
    outputs, quantizers = comparison.agreements()
    layers = made.written.layers if chosen.stores_integers and made.written else ()
    operators = made.operators()
    elsewhere = {name: _elsewhere(name, comparison.net, made.content, tried) for name in also}
    replace_file(file, made.content)
    return Certificate(
        file=str(file),
        bytes=len(made.content),
        packed_bytes=_packed_bytes(made.net, inputs),
        environment=made.environment,
        inputs={name: len(each[0]) for name, each in tried.items()},
        outputs=outputs,
        quantizers=quantizers,
        predictions=comparison.classes.share(),
        iou=comparison.classes.iou(),
        operators=operators,
        elsewhere=elsewhere,
        real_layers={layer.path: layer.reason for layer in layers if not layer.integer},
    )


def _inputs(example: Any) -> Inputs:
    given = example if isinstance(example, (tuple, list)) else (example,)
    for x in given:
        if not isinstance(x, Tensor) or x.dim() == 0:
            kind = "a tensor of one number" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ExportError(f"example must be a tensor of images, (N, ...), or a tuple of such; received {kind}.")
    return tuple(x.detach().cpu() for x in given)


def _compare(comparison: Comparison, tried: Mapping[str, Inputs]) -> None:
    with _in_eval(comparison.net):
        for inputs in tried.values():
            comparison.add(inputs)


def _elsewhere(name: str, net: nn.Module, content: bytes, tried: Mapping[str, Inputs]) -> Elsewhere:
    """Another runtime with the file; what it cannot run is noted."""
    model = RUNTIMES[name](content)
    comparison = Comparison(net, model, judging=False)
    try:
        _compare(comparison, tried)
    except ExportError as error:
        return Elsewhere(model.runtime, refusal=str(error))
    return Elsewhere(model.runtime, comparison.agreements()[0], comparison.classes.share())


@contextmanager
def _in_eval(net: nn.Module) -> Iterator[None]:
    """The network on the CPU and in eval mode, for a while."""
    home = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        with evaluating(net.cpu()):
            yield
    finally:
        net.to(home)


def _packed_bytes(net: nn.Module, inputs: Inputs) -> int | None:
    if len(inputs) != 1 or inputs[0].dim() != 4:
        return None
    return summarize(net, tuple(inputs[0].shape[1:])).total.packed_bytes
