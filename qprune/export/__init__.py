"""A trained network leaves for other runtimes: as an ONNX file, with a certificate of how equal it is."""

from qprune.export.certificate import Agreement, Certificate, Environment
from qprune.export.exporting import export_network
from qprune.export.run import export_run, monitored, open_exported, open_run
from qprune.export.running import OnnxModel, Operators
from qprune.export.writing import Written, write_network

__all__ = [
    "Agreement",
    "Certificate",
    "Environment",
    "OnnxModel",
    "Operators",
    "Written",
    "export_network",
    "export_run",
    "monitored",
    "open_exported",
    "open_run",
    "write_network",
]
