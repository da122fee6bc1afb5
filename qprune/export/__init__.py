"""A trained network leaves for other runtimes: as an ONNX file, with a certificate of how equal it is."""

from qprune.export.certificate import Agreement, Certificate, Elsewhere, Environment
from qprune.export.certificate_file import read_certificate
from qprune.export.exporting import RUNTIMES, export_network
from qprune.export.file_format import Format, Made
from qprune.export.formats import DIALECTS, FORMATS, file_model
from qprune.export.openvino_model import OpenVinoModel
from qprune.export.qonnx import write_qonnx
from qprune.export.quant_node import runnable
from qprune.export.run import export_run, monitored, open_exported, open_run
from qprune.export.running import Node, OnnxModel, Operators
from qprune.export.score_errors import score_errors
from qprune.export.torch_program import TorchProgram, write_program
from qprune.export.writing import Written, write_network
