"""Tasks by name, out of one dict."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

from qprune.errors import SpecError
from qprune.spec import TaskSpec
from qprune.spelling import nearest
from qprune.tasks.classification import Classification
from qprune.tasks.cyclegan import CycleGAN
from qprune.tasks.pix2pix import Pix2Pix
from qprune.tasks.segmentation import Segmentation
from qprune.tasks.task import Task

TASKS: dict[str, Callable[..., Task]] = {
    "classification": Classification,
    "cyclegan": CycleGAN,
    "pix2pix": Pix2Pix,
    "segmentation": Segmentation,
}

NEEDS = {
    "classification": "classification",
    "cyclegan": "translation",
    "pix2pix": "translation",
    "segmentation": "segmentation",
}
KINDS = {
    "classification": "images with one class each",
    "segmentation": "images with a class for every pixel",
    "translation": "images to translate (data.translate)",
}


def create(name: str, *, classes: tuple[str, ...], **options: Any) -> Task:
    """Make the task called ``name``.

    Args:
        name: one of `names`.
        classes: names of the classes, as the data gives them; tasks without classes leave them alone.
        options: the task's own arguments.

    Raises:
        ValueError: for an unknown name or option (the nearest valid one is named), or a value that the task refuses.

    Example:
        >>> create("segmentation", classes=("sky", "road"), hardest=0.25).names
        ('sky', 'road')
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}{nearest(name, TASKS, repr)}; there are {_list(TASKS)}")
    parameters = signature(TASKS[name]).parameters
    from_data = {"classes": len(classes), "names": classes}
    given = {key: value for key, value in from_data.items() if key in parameters}
    known = [key for key in parameters if key not in given]
    for option in options:
        if option not in known:
            raise ValueError(
                f"unknown option {option!r} of {name}{nearest(option, known, repr)}; it has {_list(known)}"
            )
    return TASKS[name](**given, **options)


def make_task(spec: TaskSpec, classes: tuple[str, ...], kind: str | None = None) -> Task:
    """Make the task of a spec.

    Args:
        spec: its ``[task]``.
        classes: names of the classes, as the data gives them.
        kind: of the data, `qprune.data.DataInfo.kind`; None if it is not known.

    Raises:
        SpecError: for an unknown name or option, a value that the task refuses, a task that the data is not for, or one
            that is the user's own.

    Example:
        >>> make_task(TaskSpec(), ("cat", "dog"), "classification").classes
        2
    """
    if spec.is_own:
        raise SpecError("The task is one of the user's own, so it must be handed over: task=, in Python.")
    needed = NEEDS.get(spec.name)
    if None not in (kind, needed) and kind != needed:
        raise SpecError(
            f'task.name = "{spec.name}" needs {KINDS[str(needed)]}; the data is {KINDS[str(kind)]}. '
            f"Tasks for it: {_list(name for name in names() if NEEDS[name] == kind)}."
        )
    try:
        return create(spec.name, classes=classes, **spec.options)
    except ValueError as error:
        raise SpecError(f"task: {error}.") from error


def needed_kind(spec: TaskSpec) -> str | None:
    """The kind of data that a task needs, `qprune.data.DataInfo.kind`; None for an unknown task.

    Example:
        >>> needed_kind(TaskSpec("pix2pix"))
        'translation'
    """
    return NEEDS.get(spec.name)


def names() -> list[str]:
    """Return the names that `create` knows, sorted.

    Example:
        >>> names()
        ['classification', 'cyclegan', 'pix2pix', 'segmentation']
    """
    return sorted(TASKS)


def _list(known: Iterable[str]) -> str:
    return ", ".join(map(repr, known))
