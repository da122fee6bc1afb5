"""An ONNX file as it may be handed to the runtime: a model that is whole in one file and leads to no other."""

import os
from collections.abc import Iterator
from typing import Any

from qprune.errors import ExportError
from qprune.exporting.packages import import_onnx
from qprune.regular_files import read_regular

LARGEST = 2**31 - 1  # bytes; the format allows no more


def read_onnx(file: str | os.PathLike[str] | bytes) -> Any:
    """Parse an ONNX model, of a path or its bytes, which must hold its weights itself.

    ONNX lets a weight name another file that holds it. `qprune.export` never writes that, and a file that came from
    elsewhere could name any file of this machine; so it is refused before the runtime sees it. The runtime is given the
    bytes that were looked through, not the path, and libraries with operators of one's own are never loaded.
    """
    onnx, name = import_onnx(), "The model" if isinstance(file, bytes) else os.fspath(file)
    try:
        content = file if isinstance(file, bytes) else read_regular(file, LARGEST)
        model = onnx.load_model_from_string(content)
        model.DiscardUnknownFields()  # the runtime could know them
        tensors = list(_tensors(model, onnx.TensorProto))
    except OSError as error:
        raise ExportError(f"{name} cannot be run: {error.strerror}.") from error
    except Exception as error:  # protobuf has several kinds
        raise ExportError(f"{name} cannot be run: it is cut off, or no ONNX file.") from error
    if not model.graph.node:
        raise ExportError(f"{name} cannot be run: it is no ONNX file, or one without a network.")
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise ExportError(
                f"{name} is not opened: its weight {tensor.name[:60]!r} lies in another file, and only what is whole "
                "in one file is. Save it with onnx.save(onnx.load(FILE), NEW_FILE) if you trust both."
            )
    return model


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """Every tensor in a message, wherever the format allows one: weights, attributes, subgraphs, functions.

    Text is looked at on the way: protobuf gives bytes for what is not UTF-8, of which the runtime fails late.
    """
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.message_type is not None:
            for each in values:
                yield from _tensors(each, kind)
        elif field.type == field.TYPE_STRING and not all(isinstance(each, str) for each in values):
            raise ValueError(f"{field.name} is no text")
