"""Functions for trained networks: load, score, run, summarize, save, export them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from qprune.costs import ShrinkReport, Summary, report_shrunk, summarize
from qprune.data import wrap_data
from qprune.errors import ExportError
from qprune.exporting import Certificate, export_network, export_run, open_run
from qprune.graph import graph_of
from qprune.shrinking import shrink_with_facts
from qprune.tasks import Task, run_padded
from qprune.training import Opened, choose_spec, evaluate_model, evaluating, open_model, runs_root, save_checkpoint


def load(
    run: Path | str, *, model: nn.Module | None = None, runs: Path | str | None = None, trusted: bool = False
) -> nn.Module:
    """The trained network of a run, in eval mode, from the run folder alone.

    Args:
        run: a run folder, its name below the runs' root, a ``model.pt``, a file from `save`, or an exported file.
        model: the network as it was handed to `fit`, where the run was trained with one of your own. It is copied.
            That is needed only if its calls could not be followed, which `fit` says at its start.
        runs: where run folders lie.
        trusted: whether ``run`` may be a program of `torch.export`, ``"model.pt2"``. Opening one runs the code in it;
            no other file does.

    Raises:
        CheckpointError: if there is no such run, or its file is damaged or of another network.
        ExportError: if an exported file cannot be run, or is a program and not trusted.

    Example:
        >>> model = qprune.load("runs/digits/a75_w4a4")
    """
    return _opened(run, runs, model=model, trusted=trusted).net


def evaluate(
    run: Path | str,
    *,
    split: str = "test",
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    runs: Path | str | None = None,
    device: str | None = None,
    batch: int | None = None,
    workers: int | None = None,
    trusted: bool = False,
) -> dict[str, float]:
    """Score a trained run, ``{"accuracy": ..., "loss": ...}``.

    Args:
        run: as for `load`.
        split: ``"test"``, ``"val"`` or ``"train"`` (without augmentation).
        model: as for `load`.
        data: as for `fit`; the split alone is enough. Of a run on data of your own it is needed.
        task: as for `fit`.
        runs: where run folders lie.
        device: as for `fit`.
        batch: images at a time; by default those of the run, up to 1,024, or fewer where they are large.
        workers: processes that load images; by default those of the run, up to one for each core.
        trusted: as for `load`.

    Raises:
        CheckpointError, ExportError: as for `load`.
        DataError: if the data is missing or has no such split.

    Example:
        >>> qprune.evaluate("runs/digits/a75_w4a4")["accuracy"]
        0.98
    """
    opened = _opened(run, runs, data, model, trusted)
    return evaluate_model(opened, split, task=task, device=device, batch=batch, workers=workers)


@torch.no_grad()
def predict(
    model: nn.Module | Path | str,
    images: Tensor,
    *,
    batch: int = 256,
    runs: Path | str | None = None,
    trusted: bool = False,
) -> Tensor:
    """The network's outputs for a batch of images, in eval mode; the network's mode is restored.

    Args:
        model: a network, or a run as for `load`.
        images: float ``(N, C, H, W)``, normalized as in training. Where the network wants sides that are multiples of
            its ``stride``, images of any size are padded and the outputs cut back.
        batch: images per forward pass.
        runs: where run folders lie.
        trusted: as for `load`.

    Returns:
        outputs on the CPU: ``(N, classes)`` for classification, ``(N, classes, H, W)`` for segmentation, images
        ``(N, 3, H, W)`` in [-1, 1] for translation.

    Example:
        >>> qprune.predict(model, images).argmax(1)
    """
    net = model if isinstance(model, nn.Module) else load(model, runs=runs, trusted=trusted)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    stride = getattr(net, "stride", 1)
    multiple = stride if isinstance(stride, int) else 1  # that of a convolution is another thing
    with evaluating(net):
        return torch.cat([run_padded(net, part.to(device), multiple).cpu() for part in images.split(batch)])


def summary(
    model: nn.Module | Path | str,
    input_size: tuple[int, ...] | None = None,
    *,
    metric: float | None = None,
    runs: Path | str | None = None,
) -> Summary:
    """The costs of a network per layer and in total: parameters, MACs, bits, bytes; prints as a table.

    Args:
        model: a network, or a run as for `load`.
        input_size: ``(C, H, W)`` of one image; by default that of the run, or ``(3, 32, 32)``.
        metric: a score, for performance density.
        runs: where run folders lie.

    Example:
        >>> print(qprune.summary(model, input_size=(3, 32, 32)))
    """
    if isinstance(model, nn.Module):
        return summarize(model, input_size or (3, 32, 32), metric=metric)
    opened = open_model(model, runs_root(runs))
    return summarize(opened.net, input_size or opened.shape, metric=metric)


def shrink_report(net: nn.Module, example: Any, fold: bool = False) -> ShrinkReport:
    """What `shrink` removes from a network, what it leaves, and why; prints as a table.

    Per layer and in total: channels, parameters, MACs and packed bytes before and after, beside what the masks promise.

    Args:
        net: a network with masks. It is not touched.
        example: as for `shrink`; the table counts one image of it.
        fold: as for `shrink`.

    Raises:
        ShrinkError: as for `shrink`.

    Example:
        >>> print(qprune.shrink_report(net, torch.zeros(1, 3, 32, 32)))
    """
    return report_shrunk(net, shrink_with_facts(net, example, fold=fold), example)


def save(net: nn.Module, path: Path | str, example: Any) -> None:
    """Save any network of yours, swapped, shrunk or neither, in a file that `load` opens without its classes.

    The calls of its forward in eval mode, as operations of ATen, are written as plain data beside its state. `load`
    makes an ordinary network of them, with the same outputs to the bit, the same module paths and state keys: to
    evaluate, train on, compile and export. Functional dropouts become layers, active in training. Hooks, schedules of
    masks and quantizers, and attributes of your classes are not kept.

    Args:
        net: the network; it is not touched.
        path: where to, say ``"small.pt"``; its folder must exist, and a file that is there is replaced.
        example: an input of it: a tensor or a tuple of arguments. What was saved is compared with ``net`` on it.

    Raises:
        ShrinkError: if the forward decides by values or shapes, or calls a function or layer that a file may not name;
            it is named. Save the ``state_dict`` of such a network.
        CheckpointError: if the file cannot be written.

    Example:
        >>> qprune.save(qprune.shrink(net, example), "small.pt", example)
        >>> small = qprune.load("small.pt")
    """
    image = example[0] if isinstance(example, (tuple, list)) else example
    shape = list(image.shape[1:]) if isinstance(image, Tensor) and image.dim() == 4 else []
    content = {"state": net.state_dict(), "spec": "", "classes": [], "shape": shape, "graph": graph_of(net, example)}
    save_checkpoint(path, content)


def export(
    model: nn.Module | Path | str,
    path: Path | str,
    example: Any = None,
    *,
    storage: str = "int8",
    dynamic_size: bool | None = None,
    dialect: str = "onnx",
    also: Sequence[str] = (),
    data: Any = None,
    runs: Path | str | None = None,
) -> Certificate:
    """Write an integer ONNX file, run it, and say exactly how equal it is to the network that was trained.

    Dropped channels are taken out and normalizations folded; quantized layers hold the integers that were trained, and
    stock ONNX Runtime computes with integers. Needs the extra: ``pip install "qprune[onnx]"``.

    Args:
        model: a network, or a run as for `load`.
        path: where to, say ``"model.onnx"``; a file that is there is replaced. ``"model.pt2"`` is a program of
            `torch.export`, which torch runs without the network's code. Other endings are refused.
        example: an input of the network, of real values where there are any; a run has its own.
        storage: ``"int8"``, or ``"int4"``: weights of up to 4 bits take half the bytes and are computed with as floats.
        dynamic_size: whether images of other height and width may come; by default where the output is an image, too.
            The number of images is always free.
        dialect: ``"onnx"``, or ``"qonnx"``: real numbers with a ``Quant`` node behind each quantized weight and
            activation, in the shapes of the example, for FINN, hls4ml and other tools that make hardware.
        also: other runtimes that run the file and are compared, too: ``["openvino"]``, which takes the extra of that
            name.
        data: of a run, the folder of its data or, of data of your own, ``{"test": ...}``, to compare and score on.
        runs: where run folders lie.

    Returns:
        the certificate: prints as a page, ``.exact``, ``.scores``, ``.operators``, ``.to_json()``.

    Raises:
        ExportError: if the packages are missing; the network calls what there is no way to write, which is named; or
            the file would compute something else, quantizers left aside, than rounding explains.

    Example:
        >>> print(qprune.export("runs/digits/a75_w4a4", "model.onnx"))
    """
    options: dict[str, Any] = {
        "storage": storage, "dynamic_size": dynamic_size, "dialect": dialect, "also": tuple(also),
    }  # fmt: skip
    if not isinstance(model, nn.Module):
        return export_run(_opened(model, runs, data), path, **options)
    if example is None:
        raise ExportError("A network does not know what its inputs look like: pass example, one of them.")
    return export_network(model, path, example, **options)


def _opened(
    run: Path | str, runs: Path | str | None, data: Any = None, model: nn.Module | None = None, trusted: bool = False
) -> Opened:
    root = runs_root(runs)
    opened = open_run(run, root, trusted=trusted) if model is None else open_model(run, root, model)
    return with_data(opened, data)


def with_data(opened: Opened, data: Any) -> Opened:
    """What was opened, with the data that the user hands over in place of its own: a folder, datasets or loaders."""
    if isinstance(data, str | Path):
        return evolve(opened, spec=choose_spec(opened.spec, folder=data))
    return opened if data is None else evolve(opened, data=wrap_data(data, trains=False))
