"""Exporting a run: compared on its own test images by its own metric; and opening what was exported."""

import copy
import os
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from qprune.data import load_data
from qprune.errors import DataError, ExportError
from qprune.export.certificate import Certificate
from qprune.export.exporting import export_network
from qprune.export.opening import file_model
from qprune.export.score_errors import score_errors
from qprune.export.torch_program import SUFFIX
from qprune.spec import read_spec
from qprune.tasks import make_task
from qprune.training import Opened, evaluate_model, open_model
from qprune.zoo import deployed

IMAGES = 64  # of the test split, on which every integer is compared


def export_run(opened: Opened, path: str | os.PathLike[str], **options: Any) -> Certificate:
    """Write a run's network as an ONNX file, and compare both on its test images, by its task's metric too.

    Without its data they are compared on random images alone, and the certificate has no scores.

    Args:
        opened: the run.
        path: where to; a file that is there is replaced.
        **options: ``storage`` and ``dynamic_size`` of `qprune.export.write_network`.

    Raises:
        ExportError: as `qprune.export.export_network`.

    Example:
        >>> certificate = export_run(open_run("digits/a75_w4a4", Path("runs")), "model.onnx")
    """
    images = _test_images(opened)
    example = (
        images[:1] if images is not None else torch.randn(1, *opened.shape, generator=torch.Generator().manual_seed(0))
    )
    tried = {} if images is None else {"test images": images}
    certificate = export_network(opened.net, path, example, images=tried, about=_about(opened), **options)
    if images is None:
        return certificate
    exported = evolve(opened, net=_with_file(opened.net, path))
    one, other = (evaluate_model(each, "test", device="cpu") for each in (opened, exported))
    scores = {name: (value, other[name]) for name, value in one.items()}
    return evolve(certificate, scores=scores, standard_errors={} if one == other else _score_errors(opened, exported))


def _score_errors(opened: Opened, exported: Opened) -> dict[str, float]:
    spec = opened.spec
    images = load_data(spec.data, spec.seed).test
    task = make_task(spec.task, opened.classes)
    return score_errors(
        opened.net, exported.net, task, images, batch=spec.train.batch, channels_last=spec.train.channels_last
    )


def _with_file(net: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """The network with the file in place of the part of it that is used after training."""
    model = file_model(path)
    if deployed(net) is net:
        return model.eval()
    whole: Any = copy.deepcopy(net)
    whole.set_submodule(whole.deployed, model)
    return whole.eval()


def monitored(opened: Opened) -> str:
    """The metric by which the run's task chooses, ``"accuracy"`` say."""
    return make_task(opened.spec.task, opened.classes).monitor


def _test_images(opened: Opened) -> Tensor | None:
    try:
        split = load_data(opened.spec.data, opened.spec.seed).test
    except DataError:
        return None
    if split is None:
        return None
    count = min(IMAGES, len(split))
    places = torch.linspace(0, len(split) - 1, count).long().tolist()
    return torch.stack([split[place][0] for place in places])


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


def open_exported(path: str | os.PathLike[str]) -> Opened:
    """Open an ONNX file that came of a run, to score it and to predict with it as with the run.

    Args:
        path: the file.

    Raises:
        ExportError: if it cannot be run, or says nothing about its classes.

    Example:
        >>> open_exported("model.onnx").classes[:2]
        ('0', '1')
    """
    model = file_model(path)
    about = model.about
    if not about:
        raise ExportError(
            f"{path} does not say what it was trained for: only files that qprune made of a run do. Run it with "
            "onnxruntime, or with qprune.export.OnnxModel."
        )
    model.stride = about["stride"]
    palette = tuple(tuple(colour) for colour in about["palette"])
    return Opened(model.eval(), read_spec(about["spec"]), tuple(about["classes"]), tuple(about["shape"]), palette)


def open_run(run: str | os.PathLike[str], root: Path) -> Opened:
    """Open a run, a file of `qprune.save`, or an exported file that came of a run.

    Raises:
        CheckpointError: as `qprune.training.open_model`.
        ExportError: as `open_exported`.

    Example:
        >>> net = open_run("model.onnx", Path("runs")).net
    """
    return open_exported(run) if Path(run).suffix in (".onnx", SUFFIX) else open_model(run, root)
