"""The teacher of a run: which network it is, and whether it can teach the run's task on its data."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from qprune.data import DataInfo
from qprune.errors import CheckpointError, PlanError, SpecError
from qprune.flow import trace, unhooked_copy
from qprune.layers import sites
from qprune.spec import Spec, TeacherSpec
from qprune.spelling import nearest
from qprune.tasks import Distilled, Task
from qprune.training.opening import Opened, open_model
from qprune.training.provided import Provided

_WAY_OUT = "name a trained run (train.teacher.run), or hand a network over: teacher=, in Python"


def open_teacher(spec: Spec, root: Path, provided: Provided, to_come: Sequence[Spec] = ()) -> nn.Module | None:
    """The network that a run learns from, in eval mode, its parameters frozen; that of the user's own is copied.

    Args:
        spec: of the run.
        root: the folder of the runs.
        provided: network, data, task and teacher of the user's own.
        to_come: the specs of a chain that will be trained before; one of them may be the teacher.

    Returns:
        None if the run has no teacher, or one that is yet to be trained.

    Raises:
        SpecError: if no teacher is named or handed over, or the task cannot learn from one.
        CheckpointError: if its run is not there or not finished.
        PlanError: if it is of other classes or images, gives what the task cannot compare, or has not the layers that
            are to be compared.

    Example:
        >>> open_teacher(read_spec("digits/baseline"), Path("runs"), Provided()) is None
        True
    """
    table = spec.train.teacher
    if table is None:
        return None
    info = provided.describe(spec)
    task = provided.make_task(spec, info)
    _check_task(task, table)
    run = _run_of(spec, table)
    later = next((link for link in to_come if link.name == run), None)
    if later is not None:
        if later.prune or later.quantize:
            _refuse_compressed(table, run)
        return None
    net, origin = _handed_over(provided) if run == "" else _opened(spec, table, run, root, info)
    _check_outputs(net.cpu().eval(), origin, task, info)
    check_layers(spec, net, f"the teacher, {origin},")
    return net.requires_grad_(False)


def taught(task: Task, teacher: nn.Module | None, table: TeacherSpec | None) -> Task:
    """The task with its teacher; the task itself if there is none."""
    if teacher is None or table is None:
        return task
    return Distilled(task, teacher, table.weight, table.temperature, table.layers)


def check_layers(spec: Spec, net: nn.Module, whose: str = "the network") -> None:
    """Refuse layers to compare that ``whose`` network has not, or that nobody would see."""
    layers = spec.train.teacher.layers if spec.train.teacher else ()
    if layers and spec.train.compile:
        raise PlanError(
            "train.teacher.layers reads what single layers give, which compiled steps do not show: leave out "
            "train.compile or the layers."
        )
    paths = [path for path, _ in net.named_modules() if path]
    for layer in layers:
        if layer not in paths:
            raise PlanError(
                f'train.teacher.layers names "{layer}", and {whose} has no such layer{nearest(layer, paths)}. Name '
                "paths that both networks have."
            )


def _check_task(task: Task, table: TeacherSpec) -> None:
    if not hasattr(task, "distillation"):
        raise SpecError(
            f"[train.teacher] needs a task with a method distillation(output, batch, teacher, temperature), and "
            f"{type(task).__name__} has none: add it, or leave the table out."
        )
    if getattr(task, "generators", ()) and table.temperature != TeacherSpec().temperature:
        raise SpecError(
            f"train.teacher.temperature has no effect on generators, which are compared by their images: leave it out; "
            f"received {table.temperature}."
        )


def _run_of(spec: Spec, table: TeacherSpec) -> str:
    run = spec.init if table.run is None else table.run
    if run is None:
        raise SpecError(f"[train.teacher] names no run, and {spec.name} starts from none (init): {_WAY_OUT}.")
    return run


def _handed_over(provided: Provided) -> tuple[nn.Module, str]:
    if provided.teacher is None:
        raise SpecError(
            'train.teacher.run = "" is a network of the user\'s own, so it must be handed over: teacher=, in Python.'
        )
    try:
        return unhooked_copy(provided.teacher), f"teacher= ({type(provided.teacher).__name__})"
    except Exception as error:  # of whatever the network holds: a lock, a file, a tensor that was computed
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(
            f"teacher= ({type(provided.teacher).__name__}) holds what cannot be copied ({reason}), and a copy of it is "
            "frozen. Keep that outside of the network, or give the network a __deepcopy__."
        ) from error


def _opened(spec: Spec, table: TeacherSpec, run: str, root: Path, info: DataInfo) -> tuple[nn.Module, str]:
    try:
        with torch.random.fork_rng(devices=[]):  # a network is made with random weights before it takes those of a file
            opened = open_model(run, root)
    except CheckpointError as error:
        raise CheckpointError(
            f"The teacher of {spec.name} cannot be opened: {error} Train it first, {_WAY_OUT}."
        ) from error
    if _is_compressed(opened):
        _refuse_compressed(table, run)
    _check_classes(opened, run, info)
    return opened.net, run


def _is_compressed(opened: Opened) -> bool:
    if not opened.whole or any(site.mask is not None or site.quant is not None for site in sites(opened.net)):
        return True
    try:  # a network that was opened by its calls has operations in place of masks
        return bool(opened.spec.prune or opened.spec.quantize)
    except CheckpointError:  # a file of `qprune.save` says nothing of how it was trained
        return False


def _refuse_compressed(table: TeacherSpec, run: str) -> None:
    """A run that was pruned or quantized may teach where it is named, not just because training starts from it."""
    if table.run is None:
        raise PlanError(
            f"[train.teacher] names no run, and {run}, which init names, is pruned or quantized already: {_WAY_OUT}."
        )


def _check_classes(opened: Opened, run: str, info: DataInfo) -> None:
    numbers = tuple(map(str, range(len(info.classes))))  # of data without names
    same = len(opened.classes) == len(info.classes) and (
        opened.classes == info.classes or numbers in (opened.classes, info.classes)
    )
    if not same:
        raise PlanError(
            f"The teacher, {run}, has other classes than the data: {_listed(opened.classes)}; the data has "
            f"{_listed(info.classes)}. Name a run on the same data: train.teacher.run."
        )
    if opened.shape and opened.shape != info.shape:
        raise PlanError(
            f"The teacher, {run}, was trained on images of {_shape(opened.shape)} (channels x height x width); the "
            f"data has {_shape(info.shape)}. Name a run on images of that shape: train.teacher.run."
        )


def _check_outputs(net: nn.Module, origin: str, task: Task, info: DataInfo) -> None:
    missing = [name for name in getattr(task, "generators", ()) if not isinstance(getattr(net, name, None), nn.Module)]
    if missing:
        raise PlanError(
            f"The teacher, {origin}, has no {' and no '.join(missing)}, whose images {type(task).__name__} compares. "
            "Name a run of the same task: train.teacher.run."
        )
    try:
        trace(net, torch.zeros(1, *info.shape, device="meta"))  # says which layer does not take what it is given
    except PlanError as error:
        raise PlanError(f"The teacher, {origin}, does not take the images of the data. {error}") from error
    with torch.no_grad():
        output = net(torch.zeros(1, *info.shape))
    if not isinstance(output, Tensor):
        raise PlanError(
            f"The teacher, {origin}, must give one tensor; received {type(output).__name__}. Put a module around it "
            "that picks the one to compare."
        )
    if hasattr(task, "check_output"):
        try:
            task.check_output(tuple(output.shape), (1, *info.shape[1:]))
        except ValueError as error:
            raise PlanError(f"The teacher, {origin}, does not fit the data: for one image its {error}.") from error


def _listed(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:3])
    return f"{len(classes)} ({shown}{', ...' if len(classes) > 3 else ''})" if classes else "none"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
