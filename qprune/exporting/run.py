"""Exporting a run: compared on its own test images by its own metric; and opening what was exported."""

import copy
import os
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qprune.data import some_images
from qprune.errors import DataError
from qprune.exporting.about import check_about
from qprune.exporting.certificate import Certificate
from qprune.exporting.exporting import export_network
from qprune.exporting.formats import file_model, format_of
from qprune.exporting.score_errors import score_errors
from qprune.tasks import make_task
from qprune.training import Opened, batch_of, evaluate_model, open_model
from qprune.zoo import deployed

IMAGES = 64  # of the test split, on which every integer is compared


def export_run(opened: Opened, path: str | os.PathLike[str], **options: Any) -> Certificate:
    """Write a run's network as an ONNX file, and compare both on its test images, by its task's metric too.

    Without its data they are compared on random images alone, and the certificate has no scores; nor has it any where
    the task was the user's own.

    Raises:
        ExportError: as `qprune.exporting.export_network`.

    Example:
        >>> certificate = export_run(open_run("digits/a75_w4a4", Path("runs")), "model.onnx")
    """
    images = _test_images(opened)
    example = (
        images[:1] if images is not None else torch.randn(1, *opened.shape, generator=torch.Generator().manual_seed(0))
    )
    tried = {} if images is None else {"test images": images}
    certificate = export_network(opened.net, path, example, images=tried, about=_about(opened), **options)
    if images is None or opened.spec.task.is_own:
        return certificate
    exported = evolve(opened, net=_with_file(opened.net, path))
    one, other = (evaluate_model(each, "test", device="cpu") for each in (opened, exported))
    scores = {name: (value, other[name]) for name, value in one.items()}
    return evolve(certificate, scores=scores, standard_errors={} if one == other else _score_errors(opened, exported))


def _score_errors(opened: Opened, exported: Opened) -> dict[str, float]:
    images = opened.split("test")
    if isinstance(images, DataLoader):  # no groups can be made of somebody's own batches
        return {}
    spec = opened.spec
    task, batch = make_task(spec.task, opened.classes), batch_of(spec, opened.shape)
    nets = opened.net, exported.net
    return score_errors(*nets, task, images, batch=batch, channels_last=spec.train.channels_last)


def _with_file(net: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """The network with the file in place of the part of it that is used after training."""
    model = file_model(path, trusted=True)  # it has just been written here
    if deployed(net) is net:
        return model.eval()
    whole: Any = copy.deepcopy(net)
    whole.set_submodule(whole.deployed, model)
    return whole.eval()


def monitored(opened: Opened) -> str:
    """The metric by which the run's task chooses, ``"accuracy"`` say; empty for a task of the user's own."""
    return "" if opened.spec.task.is_own else make_task(opened.spec.task, opened.classes).monitor


def _test_images(opened: Opened) -> Tensor | None:
    try:
        return some_images(opened.split("test"), IMAGES)
    except DataError:
        if opened.data is not None:
            raise
        return None


def _about(opened: Opened) -> dict[str, Any]:
    return {
        "spec": opened.spec.to_dict(),
        "classes": list(opened.classes),
        "shape": list(opened.shape),
        "palette": [list(colour) for colour in opened.palette],
        "stride": _stride(opened.net),
    }


def _stride(net: Any) -> int:
    stride = getattr(deployed(net), "stride", 1)
    return stride if isinstance(stride, int) else 1


def open_exported(path: str | os.PathLike[str], *, trusted: bool = False) -> Opened:
    """Open a file that was exported from a run, to score it and to predict with it as with the run."""
    model = file_model(path, trusted=trusted)
    about = model.about
    spec = check_about(about, path)
    model.stride = about["stride"]
    palette = tuple(tuple(colour) for colour in about["palette"])
    return Opened(model.eval(), spec, tuple(about["classes"]), tuple(about["shape"]), palette)


def open_run(run: str | os.PathLike[str], root: Path, *, trusted: bool = False) -> Opened:
    """Open a run, a file of `qprune.save`, or an exported file that came of a run.

    Raises:
        CheckpointError: as `qprune.training.open_model`.
        ExportError: as `open_exported`.

    Example:
        >>> net = open_run("model.onnx", Path("runs")).net
    """
    return open_model(run, root) if format_of(run) is None else open_exported(run, trusted=trusted)
