"""The public face: one screen of functions that put the rooms together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from qprune import assemble as assembling
from qprune.calibration import calibrate
from qprune.data import describe, wrap_data
from qprune.dense import to_dense
from qprune.errors import ExportError
from qprune.exact import make_exact
from qprune.export import Certificate, export_network, export_run, open_run
from qprune.graph import graph_of
from qprune.network_plan import Plan
from qprune.report import ShrinkReport, Summary, report_shrunk, summarize
from qprune.shrink import shrink, shrink_with_facts
from qprune.spec import PruneRule, QuantizeRule, mistakes_in, read_rules, read_spec
from qprune.tasks import Task, run_padded
from qprune.training import (
    Callback,
    History,
    Opened,
    Overrides,
    Progress,
    Provided,
    ScheduleDriver,
    SpecLike,
    check_run,
    choose_device,
    choose_spec,
    claim_run,
    determined,
    evaluate_model,
    init_run,
    joined,
    load_model,
    missing_links,
    model_file,
    open_model,
    plan_chain,
    plan_run,
    prepare,
    runs_root,
    save_checkpoint,
    train,
)

__all__ = [
    "ScheduleDriver",
    "build",
    "calibrate",
    "evaluate",
    "export",
    "fit",
    "load",
    "plan",
    "predict",
    "save",
    "shrink",
    "shrink_report",
    "summary",
    "swap",
    "to_dense",
]


def fit(
    spec: SpecLike,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    callbacks: Sequence[Callback] = (),
    runs: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    chain: bool = False,
    name: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    deterministic: bool = False,
    verbose: str | int = "auto",
    overrides: Overrides = (),
) -> History:
    """Train what a spec describes, and leave a run folder behind.

    Args:
        spec: the name of a spec or a part of it, a path, a table, or a `Spec`.
        model: a network of your own in place of the spec's, which may then have no ``[model]``. The rules act on it as
            by `swap`, on a copy, which is trained: ``model`` stays as it is, and the trained one is `load` of the run.
            Masks and quantizers that it has already stay; rules add to them.
        data: the folder of the data, or ``{"train": ..., "val": ..., "test": ...}`` of datasets or loaders of pairs
            (image, target) in place of the spec's, which may then have no ``[data]`` (with loaders a run resumes
            exactly only between epochs).
        task: an object with loss, metrics and step in place of the spec's, see `qprune.tasks.Task`.
        callbacks: run after the built-in ones.
        runs: where run folders lie; else ``QPRUNE_RUNS``, else ``./runs``.
        resume: go on with a run that was interrupted.
        overwrite: replace a run of the same name.
        chain: train what ``init`` names first, if it has not been trained; with the same ``model``, ``data`` and
            ``task``, where they are handed over.
        name: name of the run, in place of the spec's.
        seed: another seed; the run is called ``<name>@seed<N>``, and ``init`` is looked for under that name first.
        device: ``"cpu"``, ``"cuda"``, ...; by default a GPU if there is one.
        deterministic: choose operations that give the same bits in every run; those that cannot are named in the log.
        verbose: ``"auto"`` (live on a terminal, else a line per epoch), 1 (live), 2 (a line per epoch), or 0 (silent).
        overrides: values of the spec to replace, ``["train.batch=32"]``.

    Returns:
        the history: ``.history["val_accuracy"]`` has one entry per validation, ``.scores`` the final scores of each
        split, ``.run`` is the folder. After Ctrl-C or SIGTERM ``.interrupted`` is true, and ``resume`` goes on.

    Raises:
        SpecError: for a spec with mistakes, an ``init`` that leads back to itself, or a network that is neither in the
            spec nor handed over, cannot be copied, or does not fit the data.
        DataError: for data that is missing or malformed.
        PlanError: for rules that cannot work; nothing is trained, of a chain neither, and no folder is made.
        CheckpointError: if the run exists already, or ``init`` does not.
        TrainingError: if the loss is no longer a number, a callback fails, or another process does.

    Example:
        >>> history = qprune.fit("digits/a75_w4a4", chain=True)
        >>> history.scores["test"]["accuracy"]
        0.98
    """
    provided = Provided.of(model, data, task)
    chosen = provided.in_place_of(choose_spec(spec, name=name, seed=seed, overrides=overrides, folder=_folder(data)))
    root, progress = runs_root(runs), Progress(verbose)
    with joined(choose_device(device)), determined(deterministic):
        earlier = missing_links(chosen, root, folder=_folder(data), resume=resume) if chain else []
        if seed is not None and not earlier:
            chosen = evolve(chosen, init=init_run(chosen, root))
        check_run(root, chosen, resume, overwrite)  # refuses before hours of work, not after
        if earlier:
            plan_chain([*earlier, chosen], root, provided=provided, sources={chosen.name: spec})
        for link in earlier:
            options: dict[str, Any] = {"runs": runs, "resume": resume, "device": device, "verbose": verbose}
            history = fit(link, model=model, data=provided.data, task=task, **options)
            if history.interrupted:
                return history
        init = load_model(model_file(chosen.init, root)) if chosen.init else None
        with mistakes_in(spec):
            experiment = prepare(chosen, provided, device=device, init=init)
        with claim_run(root, chosen, resume, overwrite) as claim:
            return train(experiment, claim, callbacks=[progress, *callbacks], resume=resume)


def build(spec: SpecLike) -> nn.Module:
    """The network of a spec at step 0, with its masks and quantizers in place; weights from the spec's seed.

    Raises:
        SpecError: for a spec with mistakes.
        PlanError: for rules that do not fit the network.

    Example:
        >>> net = qprune.build("digits/a75_w4a4")
    """
    chosen = read_spec(spec)
    info = describe(chosen.data)
    with mistakes_in(spec), torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(chosen.seed)
        net = assembling.assemble(chosen, len(info.classes), info.shape)
        if chosen.arithmetic.remakes:
            make_exact(net, torch.zeros(2, *info.shape, device="meta"))
        return net


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
    modes = {module: module.training for module in net.modules()}
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        net.eval()
        stride = getattr(net, "stride", 1)
        multiple = stride if isinstance(stride, int) else 1  # that of a convolution is another thing
        return torch.cat([run_padded(net, part.to(device), multiple).cpu() for part in images.split(batch)])
    finally:
        for module, training in modes.items():
            module.training = training


def export(
    model: nn.Module | Path | str,
    path: Path | str,
    example: Any = None,
    *,
    storage: str = "int8",
    dynamic_size: bool | None = None,
    dialect: str = "onnx",
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
    options: dict[str, Any] = {"storage": storage, "dynamic_size": dynamic_size, "dialect": dialect}
    if not isinstance(model, nn.Module):
        return export_run(_opened(model, runs, data), path, **options)
    if example is None:
        raise ExportError("A network does not know what its inputs look like: pass example, one of them.")
    return export_network(model, path, example, **options)


def summary(
    model: nn.Module | Path | str,
    input_size: tuple[int, ...] | None = None,
    *,
    metric: float | None = None,
    runs: Path | str | None = None,
) -> Summary:
    """What a network costs, per layer and in total: parameters, MACs, bits, bytes; prints as a table.

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


def plan(
    spec: SpecLike,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    steps_per_epoch: int | None = None,
    runs: Path | str | None = None,
    overrides: Overrides = (),
) -> Plan:
    """Everything that training would do, without training: sites, time line, cost; prints as a time line.

    What the run that ``init`` names has pruned counts; if it is not trained yet, it is planned first.

    Args:
        spec: as for `fit`.
        model: as for `fit`.
        data: as for `fit`.
        task: as for `fit`.
        steps_per_epoch: optimizer steps of one epoch; by default from the size of the data set.
        runs: where run folders lie.
        overrides: as for `fit`.

    Raises:
        SpecError: for a spec with mistakes.
        PlanError: for rules that match nothing, end after training does, or prune nothing or too much.
        CheckpointError: if the run that ``init`` names does not fit.

    Example:
        >>> print(qprune.plan("digits/a75_layerwise"))
    """
    provided = Provided.of(model, data, task)
    chosen = provided.in_place_of(choose_spec(spec, overrides=overrides, folder=_folder(data)))
    return plan_run(chosen, runs_root(runs), provided, spec, steps_per_epoch=steps_per_epoch, folder=_folder(data))


def save(net: nn.Module, path: Path | str, example: Any) -> None:
    """One file that `load` opens without the network's classes: any network of yours, swapped, shrunk or neither.

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


def shrink_report(net: nn.Module, example: Any, fold: bool = False) -> ShrinkReport:
    """What `shrink` takes out of a network, and what it leaves and why; prints as a table.

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


def swap(
    net: nn.Module,
    example: Any,
    *,
    prune: Sequence[PruneRule | Mapping[str, Any]] = (),
    quantize: Sequence[QuantizeRule | Mapping[str, Any]] = (),
    numerics: str = "default",
    complete: bool = False,
) -> nn.Module:
    """A copy of a network of your own whose chosen layers can be pruned and quantized.

    Every dense key of its ``state_dict`` keeps its name; compressor keys are added. Hooks are kept and shared layers
    stay shared. ``net`` is not touched: make the optimizer from the copy, and a `ScheduleDriver`.

    Args:
        net: any network of torch layers.
        example: an input of it (a tensor or a tuple of arguments); only its shape matters.
        prune: rules as in a spec,
            ``{"sites": [{"types": ["Conv2d"], "at": "input"}], "sparsity": 0.75, "schedule": ...}``.
        quantize: rules as in a spec, ``{"sites": [...], "bits": 4, "start": 200}``.
        numerics: ``"default"``, ``"paper"``, or ``"exact"``: the exported file computes the same bits. It takes the
            masks and the statistics of normalizations as final; ``net`` must be trained.
        complete: also quantize to 8 bits what convolutions, sums and concatenations read and no rule quantizes, so
            that all of them have an integer form when exported.

    Raises:
        SpecError: for rules with mistakes.
        PlanError: for rules that do not fit the network; every mistake is one line.

    Example:
        >>> weights = {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 0}
        >>> net = qprune.swap(resnet18(), torch.zeros(1, 3, 64, 64), quantize=[weights])
    """
    rules = read_rules(prune, quantize)
    return assembling.swap(net, example, rules.prune, rules.quantize, numerics, complete)


def _opened(
    run: Path | str,
    runs: Path | str | None,
    data: Any = None,
    model: nn.Module | None = None,
    trusted: bool = False,
) -> Opened:
    root = runs_root(runs)
    opened = open_run(run, root, trusted=trusted) if model is None else open_model(run, root, model)
    if isinstance(data, str | Path):
        return evolve(opened, spec=choose_spec(opened.spec, folder=data))
    return opened if data is None else evolve(opened, data=wrap_data(data, trains=False))


def _folder(data: Any) -> str | Path | None:
    return data if isinstance(data, str | Path) else None
