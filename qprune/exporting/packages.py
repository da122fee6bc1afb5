"""The packages that only export needs, imported where they are used."""

from types import ModuleType

from qprune.errors import ExportError
from qprune.exporting.no_way import NoWayError

_WAY_OUT = 'needs the packages of the extra "onnx": pip install "qprune[onnx]"'


def import_onnx() -> ModuleType:
    """The package ``onnx``, which writes and reads the files."""
    try:
        import onnx
    except ImportError as error:
        raise ExportError(f"An ONNX file {_WAY_OUT} ({error}).") from error
    return onnx


def import_torchs_exporter() -> None:
    """The package ``onnxscript``, with which torch writes what qprune has no way of its own for."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise NoWayError(f"torch's own exporter, which may know it, {_WAY_OUT}") from error


def import_runtime() -> ModuleType:
    """The package ``onnxruntime``, which runs the files."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(f"Running an ONNX file {_WAY_OUT} ({error}).") from error
    return onnxruntime
