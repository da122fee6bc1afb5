"""Every example in a docstring that stands by itself is run; those that speak of the reader's own things are named."""

import doctest
import importlib
import pkgutil
import sys
from pathlib import Path

import pytest
import torch
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
NAMES |= {name: getattr(room, name) for room in ROOMS for name in getattr(room, "__all__", ())}

# What a reader has and the tests do not: a network in training, files of photos, runs. To be run, an example needs
# things of its own; one that has them leaves this list.
OF_THE_READER = {
    "qprune.api.fit", "qprune.api.swap", "qprune.calibration.calibrate", "qprune.data.cifar.cifar_source",
    "qprune.data.class_file.read_class_file", "qprune.data.decode.ImageFiles", "qprune.data.decode.read_image",
    "qprune.data.decode.read_images", "qprune.data.decode.read_size", "qprune.data.folders.folder_source",
    "qprune.data.inputs.read_inputs", "qprune.data.labels.read_label_size", "qprune.data.labels.read_labels",
    "qprune.data.loaders.eval_loader", "qprune.data.loaders.train_loader", "qprune.data.pictures.LabelFiles",
    "qprune.data.pictures.PhotoFiles", "qprune.data.scenes.camvid_source", "qprune.data.scenes.cityscapes_source",
    "qprune.data.scenes.segmentation_source", "qprune.data.translation.has_two_folders",
    "qprune.data.translation.translation_source", "qprune.data.user_data.Splits", "qprune.data.user_data.wrap_data",
    "qprune.data.user_facts.class_names", "qprune.data.workers.LoaderWatch",
    "qprune.data.workers.explaining_lost_loaders", "qprune.exact.bias_grids", "qprune.exact.make_exact",
    "qprune.exact.settle_biases", "qprune.export.about.check_about", "qprune.export.formats.file_model",
    "qprune.export.locating.where_it_begins", "qprune.export.onnx_file.read_onnx", "qprune.export.onnx_format.Onnx",
    "qprune.export.qonnx.Qonnx", "qprune.export.qonnx.write_qonnx", "qprune.export.quant_node.runnable",
    "qprune.export.replacing.replace_file", "qprune.export.run.export_run", "qprune.export.run.open_exported",
    "qprune.export.run.open_run", "qprune.export.running.OnnxModel", "qprune.export.score_errors.score_errors",
    "qprune.export.torch_program.Program", "qprune.export.torch_program.TorchProgram",
    "qprune.export.torch_program.write_program", "qprune.regular_files.read_regular",
    "qprune.report.chain.chain_of", "qprune.report.forecast.carry_out", "qprune.report.forecast.forecast",
    "qprune.report.shrinking.report_shrunk", "qprune.shrink.shrink.shrink", "qprune.tasks.cyclegan.CycleGAN",
    "qprune.tasks.pix2pix.Pix2Pix", "qprune.trained.evaluate", "qprune.trained.export", "qprune.trained.load",
    "qprune.trained.predict", "qprune.trained.save", "qprune.trained.shrink_report", "qprune.trained.summary",
    "qprune.training.archive.check_archive", "qprune.training.callbacks.CallbackList",
    "qprune.training.checkpoint.load", "qprune.training.claim.check_run", "qprune.training.claim.claim_run",
    "qprune.training.content.plain", "qprune.training.csv_logger.CSVLogger.move_to",
    "qprune.training.evaluation.evaluate", "qprune.training.evaluation.evaluating",
    "qprune.training.history.History.plot", "qprune.training.model_checkpoint.ModelCheckpoint.move_to",
    "qprune.training.nan.find_offender", "qprune.training.opening.is_trained", "qprune.training.opening.load_model",
    "qprune.training.opening.model_file", "qprune.training.optimizers.make_average",
    "qprune.training.provided.Provided", "qprune.training.provided.Provided.in_place_of",
    "qprune.training.reproducibility.determined", "qprune.training.reproducibility.set_rng",
    "qprune.training.resuming.explaining_misfit", "qprune.training.roll_call.RollCall",
    "qprune.training.run.Run.create", "qprune.training.run.Run.drop_unsaved", "qprune.training.run.Run.open",
    "qprune.training.run.Run.read_last", "qprune.training.shrinking.Shrinker",
    "qprune.training.small_model.save_small", "qprune.training.standstill.Standstill",
    "qprune.training.tensorboard.TensorBoard.add", "qprune.training.tensorboard.TensorBoard.move_to",
    "qprune.training.trainer.Trainer", "qprune.training.update.Update",
}  # fmt: skip


class _Checker(doctest.OutputChecker):
    """An example that shows no output may give some."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def _examples():
    for module in MODULES:
        room = sys.modules[".".join(module.__name__.split(".")[:2])]
        own = {name: getattr(room, name) for name in getattr(room, "__all__", ()) if room is not module}
        for test in doctest.DocTestFinder().find(module, module.__name__, globs=NAMES | own | vars(module)):
            if test.examples:
                yield test


EXAMPLES = {test.name: test for test in _examples()}


def _run(name):
    torch.manual_seed(0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    told = []
    failed, _ = doctest.DocTestRunner(_Checker(), optionflags=flags).run(EXAMPLES[name], out=told.append)
    return failed, "".join(told)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QPRUNE_RUNS", raising=False)


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - OF_THE_READER))
def test_example_in_docstring_is_true(name, empty_folder):
    failed, told = _run(name)
    assert not failed, told


def test_only_examples_that_are_there_are_left_out():
    assert sorted(OF_THE_READER - EXAMPLES.keys()) == []


@pytest.mark.parametrize("name", sorted(OF_THE_READER & EXAMPLES.keys()))
@pytest.mark.slow
def test_what_is_left_out_does_not_stand_by_itself(name, empty_folder):
    assert _run(name)[0], f"{name} can be run: take it off the list"
