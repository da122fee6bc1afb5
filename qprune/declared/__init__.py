"""Networks declared layer by layer, as `[[model.layers]]` of a spec does."""

from qprune.declared.build import build_declared
from qprune.declared.net import DeclaredNet
