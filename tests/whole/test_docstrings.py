"""Every example in a docstring that stands by itself is run; those that speak of the reader's own things are named."""

import copy
import doctest
import importlib
import pkgutil
import shutil
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from docstring_things import fill, of_digits, of_gans, things
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import qprune

PACKAGE = Path(str(qprune.__file__)).parent
MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages([str(PACKAGE)], "qprune.")
    if found.name != "qprune.__main__"
]
ROOMS = [module for module in MODULES if hasattr(module, "__path__")]
NAMES = {"torch": torch, "nn": nn, "qprune": qprune, "Path": Path}
NAMES |= {"DataLoader": DataLoader, "TensorDataset": TensorDataset}


def _shown(room):
    """What a room shows: its list of names, or where it has none what it imports."""
    imported = (name for name, value in vars(room).items() if name[0] != "_" and not isinstance(value, ModuleType))
    return {name: getattr(room, name) for name in getattr(room, "__all__", imported)}


for room in ROOMS:
    NAMES |= _shown(room)

# What the tests do not have: whole data sets, hours of training, a process that hangs.
OF_THE_READER = {
    "qprune.api.fit", "qprune.exporting.torch_program.TorchProgram", "qprune.exporting.torch_program.write_program",
    "qprune.costs.forecast.carry_out", "qprune.costs.forecast.forecast",
    "qprune.starting.new.write_specs", "qprune.sweeps.sweep", "qprune.trained.evaluate",
}  # fmt: skip


# What is run with a reader's network, files and run, which `docstring_things` makes.
WITH_THINGS = {
    "qprune.assemble.swap", "qprune.calibration.calibrate", "qprune.comparison.Comparison.plot",
    "qprune.comparison.Comparison.to_html", "qprune.comparison.compare", "qprune.costs.report_file.read_report",
    "qprune.data.inputs.read_inputs", "qprune.exporting.certificate_file.read_certificate", "qprune.reports.report",
    "qprune.run_record.RunRecord", "qprune.run_record.RunRecord.open", "qprune.run_record.find_runs",
    "qprune.training.samples.view_of",
    "qprune.data.loaders.eval_loader", "qprune.data.loaders.train_loader", "qprune.data.user_data.Splits",
    "qprune.data.user_data.wrap_data", "qprune.data.user_facts.class_names", "qprune.data.workers.LoaderWatch",
    "qprune.data.workers.explaining_lost_loaders", "qprune.exact.bias_grids", "qprune.exact.make_exact",
    "qprune.exact.settle_biases", "qprune.exporting.formats.file_model",
    "qprune.exporting.openvino_model.OpenVinoModel", "qprune.exporting.qonnx.write_qonnx",
    "qprune.exporting.run.export_run", "qprune.exporting.run.open_run", "qprune.exporting.running.OnnxModel",
    "qprune.regular_files.read_regular", "qprune.costs.chain.chain_of", "qprune.costs.shrinking.report_shrunk",
    "qprune.shrinking.shrink.shrink", "qprune.tasks.cyclegan.CycleGAN", "qprune.tasks.pix2pix.Pix2Pix",
    "qprune.trained.export", "qprune.trained.load", "qprune.trained.predict", "qprune.searches.search",
    "qprune.searches.sensitivity", "qprune.trained.save", "qprune.trained.shrink_report", "qprune.trained.summary",
    "qprune.training.callbacks.CallbackList", "qprune.training.checkpoint.load", "qprune.training.claim.check_run",
    "qprune.training.claim.claim_run", "qprune.training.csv_logger.CSVLogger.move_to",
    "qprune.training.evaluation.evaluate", "qprune.shrinking.watching.evaluating",
    "qprune.training.history.History.plot", "qprune.training.model_checkpoint.ModelCheckpoint.move_to",
    "qprune.training.opening.load_model", "qprune.training.opening.model_file",
    "qprune.training.averaging.make_average", "qprune.training.provided.Provided",
    "qprune.training.provided.Provided.in_place_of", "qprune.training.reproducibility.determined",
    "qprune.training.reproducibility.set_rng", "qprune.training.run.Run.create",
    "qprune.training.run.Run.drop_unsaved", "qprune.training.run.Run.open", "qprune.training.run.Run.read_last",
    "qprune.training.shrinking.Shrinker", "qprune.training.small_model.save_small",
    "qprune.training.tensorboard.TensorBoard.add", "qprune.training.tensorboard.TensorBoard.move_to",
    "qprune.training.trainer.Trainer", "qprune.training.update.Update",
}  # fmt: skip
SPECIAL = {
    "qprune.tasks.cyclegan.CycleGAN": partial(of_gans, "cyclegan"),
    "qprune.tasks.pix2pix.Pix2Pix": partial(of_gans, "pix2pix"),
    "qprune.exporting.formats.file_model": of_digits,
}


class _Checker(doctest.OutputChecker):
    """An example that shows no output may give some."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def _examples():
    for module in MODULES:
        room = sys.modules[".".join(module.__name__.split(".")[:2])]
        own = _shown(room) if room in ROOMS and room is not module else {}
        for test in doctest.DocTestFinder().find(module, module.__name__, globs=NAMES | own | vars(module)):
            if test.examples:
                yield test


EXAMPLES = {test.name: test for test in _examples()}


def _run(name, **names):
    torch.manual_seed(0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    told = []
    example = copy.copy(EXAMPLES[name])
    example.globs = names | example.globs
    failed, _ = doctest.DocTestRunner(_Checker(), optionflags=flags).run(example, out=told.append)
    return failed, "".join(told)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader") / "files"
    fill(folder)
    return folder


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)


@pytest.fixture
def readers(empty_folder, files, tmp_path):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - WITH_THINGS - OF_THE_READER))
def test_example_in_docstring_is_true(name, empty_folder):
    failed, told = _run(name)
    assert not failed, told


@pytest.mark.parametrize("name", sorted(WITH_THINGS))
def test_example_in_docstring_is_true_of_a_readers_things(name, readers):
    failed, told = _run(name, **things() | SPECIAL.get(name, dict)())
    assert not failed, told


def test_only_examples_that_are_there_are_left_out():
    assert sorted((OF_THE_READER | WITH_THINGS) - EXAMPLES.keys()) == []


@pytest.mark.parametrize("name", sorted(OF_THE_READER & EXAMPLES.keys()))
@pytest.mark.slow
def test_what_is_left_out_does_not_stand_by_itself(name, empty_folder):
    assert _run(name)[0], f"{name} can be run: take it off the list"
