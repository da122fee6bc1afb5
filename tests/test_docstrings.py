import doctest
import importlib
import pkgutil

import pytest
import torch
from torch import nn

import qprune.functional
import qprune.importances
import qprune.layers
import qprune.schedules
import qprune.zoo

PACKAGES = (qprune.importances, qprune.layers, qprune.schedules, qprune.zoo)
MODULES = ["qprune.functional"] + [
    f"{package.__name__}.{module.name}" for package in PACKAGES for module in pkgutil.iter_modules(package.__path__)
]
NAMES = {"torch": torch, "nn": nn} | {name: getattr(package, name) for package in PACKAGES for name in package.__all__}


def examples():
    for module in map(importlib.import_module, MODULES):
        for test in doctest.DocTestFinder().find(module, extraglobs=NAMES):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("example", list(examples()))
def test_example_in_docstring_is_true(example):
    torch.manual_seed(0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert result.failed == 0
