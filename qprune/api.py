"""From a spec to a trained network; what is done with that one is in `qprune.trained`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import nn

from qprune.assemble import assemble
from qprune.data import describe, with_presets
from qprune.exact import make_exact
from qprune.network_plan import Plan
from qprune.reports import report_if_possible
from qprune.spec import Spec, mistakes_in, read_spec
from qprune.tasks import Task
from qprune.training import (
    Callback,
    History,
    Overrides,
    Progress,
    Provided,
    Run,
    SpecLike,
    check_run,
    check_switches,
    check_trackers,
    choose_device,
    choose_spec,
    claim_run,
    determined,
    init_run,
    joined,
    load_model,
    missing_links,
    model_file,
    open_teacher,
    plan_chain,
    plan_run,
    prepare,
    runs_root,
    stages,
    start_from_weights,
    train,
)


def fit(
    spec: SpecLike,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    teacher: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    runs: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    chain: bool = False,
    name: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    deterministic: bool = False,
    download: bool = False,
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
        teacher: a trained network of your own to learn from, in place of the run that ``[train.teacher]`` names, which
            may then be left out. It is copied, and the copy frozen.
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
        download: fetch what is not on this machine: the file of ``model.weights``, CIFAR-10 and CIFAR-100.
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
        CheckpointError: if the run exists already, or ``init`` or the teacher's does not.
        TrainingError: if the loss is no longer a number, a callback fails, or another process does.

    Example:
        >>> history = qprune.fit("digits/a75_w4a4", chain=True)
        >>> history.scores["test"]["accuracy"]
        0.98
    """
    provided = Provided.of(model, data, task, teacher)
    chosen = choose_spec(spec, name=name, seed=seed, overrides=overrides, folder=provided.folder)
    with mistakes_in(spec):
        chosen = provided.in_place_of(chosen, download)
    root, untaught = runs_root(runs), evolve(provided, teacher=None)
    with joined(choose_device(device)), determined(deterministic):
        earlier = missing_links(chosen, root, folder=provided.folder, resume=resume) if chain else []
        if seed is not None and not earlier:
            chosen = evolve(chosen, init=init_run(chosen, root))
        check_run(root, chosen, resume, overwrite)  # refuses before hours of work, not after
        check_trackers([*earlier, chosen])
        check_switches([*earlier, chosen], deterministic)
        plans = plan_chain([*earlier, chosen], root, provided=provided, sources={chosen.name: spec}) if earlier else []
        options: dict[str, Any] = {"root": root, "resume": resume, "device": device, "download": download}
        progresses = [Progress(verbose, stage=stage) for stage in stages([*earlier, chosen], plans)]
        for link, progress in zip(earlier, progresses, strict=False):
            with mistakes_in(link):
                before = untaught.in_place_of(link, download)
            check_run(root, before, resume, overwrite=False)
            history = _train(before, link, untaught, callbacks=[progress], **options)
            if history.interrupted:
                return history
        options |= {"overwrite": overwrite, "callbacks": [progresses[-1], *callbacks]}
        return _train(chosen, spec, provided, **options)


def _train(
    spec: Spec,
    source: SpecLike,
    provided: Provided,
    *,
    root: Path,
    callbacks: Sequence[Callback],
    resume: bool,
    device: str | None,
    download: bool,
    overwrite: bool = False,
) -> History:
    """Train one run; what it starts from is there."""
    init = load_model(model_file(spec.init, root)) if spec.init else None
    with mistakes_in(source):
        teacher = open_teacher(spec, root, provided)
        begins = not (resume and Run(root / spec.name).resumable)
        options: dict[str, Any] = {"device": device, "init": init, "teacher": teacher, "begins": begins}
        experiment = prepare(spec, provided, download=download, **options)
    with claim_run(root, spec, resume, overwrite) as claim:
        page = partial(report_if_possible, provided=provided, runs=root, device=device)
        return train(experiment, claim, callbacks=callbacks, resume=resume, page=page)


def plan(
    spec: SpecLike,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    teacher: nn.Module | None = None,
    steps_per_epoch: int | None = None,
    runs: Path | str | None = None,
    overrides: Overrides = (),
) -> Plan:
    """Plan a training without running it: sites, time line, cost; prints as a time line.

    What the run that ``init`` names has pruned counts; if it is not trained yet, it is planned first.

    Args:
        spec: as for `fit`, like ``model``, ``data``, ``task``, ``teacher`` and ``overrides``.
        steps_per_epoch: optimizer steps of one epoch; by default from the size of the data set.
        runs: where run folders lie.

    Raises:
        SpecError: for a spec with mistakes.
        PlanError: for rules that match nothing, end after training does, or prune nothing or too much.
        CheckpointError: if the run that ``init`` names does not fit, or that of the teacher is not trained.

    Example:
        >>> print(qprune.plan("digits/a75_layerwise"))
    """
    provided = Provided.of(model, data, task, teacher)
    chosen = choose_spec(spec, overrides=overrides, folder=provided.folder)
    with mistakes_in(spec):
        chosen = provided.in_place_of(chosen)
    return plan_run(chosen, runs_root(runs), provided, spec, steps_per_epoch=steps_per_epoch)


def build(spec: SpecLike) -> nn.Module:
    """The network of a spec at step 0, with its masks and quantizers in place; weights from the spec's seed.

    Weights that ``model.weights`` names are taken over where they are on this machine; else the log says that they are
    not.

    Raises:
        SpecError: for a spec with mistakes.
        PlanError: for rules that do not fit the network.
        CheckpointError: if the weights that it names do not fit.

    Example:
        >>> net = qprune.build("digits/a75_w4a4")
    """
    with mistakes_in(spec):
        chosen = with_presets(read_spec(spec))
    info = describe(chosen.data)
    with mistakes_in(spec), torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(chosen.seed)
        net = assemble(chosen, len(info.classes), info.shape)
        if chosen.init is None:
            start_from_weights(net, chosen, len(info.classes), info.shape[0], needed=False)
        if chosen.arithmetic.remakes:
            make_exact(net, torch.zeros(2, *info.shape, device="meta"))
        return net
