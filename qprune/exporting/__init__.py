"""A trained network leaves for other runtimes: as an ONNX file, with a certificate of how equal it is."""

from qprune.exporting.certificate import Agreement, Certificate, Elsewhere, Environment
from qprune.exporting.certificate_file import read_certificate
from qprune.exporting.exporting import RUNTIMES, export_network
from qprune.exporting.file_format import Format, Made
from qprune.exporting.formats import DIALECTS, FORMATS, file_model
from qprune.exporting.openvino_model import OpenVinoModel
from qprune.exporting.qonnx import write_qonnx
from qprune.exporting.quant_node import runnable
from qprune.exporting.run import export_run, monitored, open_exported, open_run
from qprune.exporting.running import Node, OnnxModel, Operators
from qprune.exporting.score_errors import score_errors
from qprune.exporting.torch_program import TorchProgram, write_program
from qprune.exporting.writing import Written, write_network
