"""Plain networks in the forms of their papers, made by name: `create("mobilenetv2", classes=10, width=0.5)`."""

from qprune.zoo.create import create, names, options_of, own_options
from qprune.zoo.deployed import deployed, deployed_prefix
from qprune.zoo.joints import Add, Concat
from qprune.zoo.libraries import (
    BACKBONE,
    backbone_state,
    find_weights,
    is_of_library,
    library_names,
    native_state,
    needed_options,
    preset_of,
)
from qprune.zoo.state_files import State, read_state
from qprune.zoo.weights import Preset, Weights

__all__ = [
    "BACKBONE", "Add", "Concat", "Preset", "State", "Weights", "backbone_state", "create", "deployed",
    "deployed_prefix", "find_weights", "is_of_library", "library_names", "names", "native_state", "needed_options",
    "options_of", "own_options", "preset_of", "read_state",
]  # fmt: skip
