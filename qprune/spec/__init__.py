"""Specs: a run as frozen values, read from TOML files and written to them."""

from qprune.spec.finding import find_spec, list_specs
from qprune.spec.network import LayerSpec, ModelSpec
from qprune.spec.parsing import parse_toml
from qprune.spec.reading import mistakes_in, read_embedded, read_rules, read_spec
from qprune.spec.recipe import DataSpec, LrSpec, OptimizerSpec, TrainSpec, minutes
from qprune.spec.rules import PruneRule, QuantizeRule, Rules, Selector
from qprune.spec.spec import Spec
from qprune.spec.task import TaskSpec
from qprune.spec.teacher import TeacherSpec
from qprune.spec.tree import spec_tree
from qprune.spec.values import Table
from qprune.spec.writing import spec_to_toml

__all__ = [
    "DataSpec", "LayerSpec", "LrSpec", "ModelSpec", "OptimizerSpec", "PruneRule", "QuantizeRule", "Rules",
    "Selector", "Spec", "Table", "TaskSpec", "TeacherSpec", "TrainSpec", "find_spec", "list_specs", "minutes",
    "mistakes_in", "parse_toml", "read_embedded", "read_rules", "read_spec", "spec_to_toml", "spec_tree",
]  # fmt: skip
