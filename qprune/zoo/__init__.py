"""Plain networks in the forms of their papers, made by name: `create("mobilenetv2", classes=10, width=0.5)`."""

from qprune.zoo.create import create, names, options_of, own_options
from qprune.zoo.deployed import deployed
from qprune.zoo.joints import Add, Concat
from qprune.zoo.libraries import library_names

__all__ = ["Add", "Concat", "create", "deployed", "library_names", "names", "options_of", "own_options"]
