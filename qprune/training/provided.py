"""`Provided`: the network, data and task that a user hands over in place of those of a spec."""

from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import nn
from torch.utils.data import DataLoader

from qprune.assemble import dense_network
from qprune.data import (
    DataInfo,
    Splits,
    class_names,
    count_classes,
    describe,
    image_shape,
    load_data,
    usual_statistics,
    with_download,
    with_presets,
    wrap_data,
)
from qprune.errors import DataError, SpecError
from qprune.flow import trace
from qprune.spec import ModelSpec, Spec, TaskSpec, TeacherSpec
from qprune.tasks import Task, make_task, needed_kind

Shape = tuple[int, int, int]


@frozen(eq=False)
class Provided:
    """Network, data and task that the user passed as arguments; whatever is None is made as the spec says.

    Attributes:
        model: the network; it is copied before it is changed.
        data: its data.
        task: what is minimized and measured.
        teacher: a network that it learns from.
        folder: where the spec's data is, in place of ``data.root``.

    Example:
        >>> Provided.of(model=resnet18(), data={"train": train_set}).model is not None
        True
    """

    model: nn.Module | None = None
    data: Splits | None = None
    task: Task | None = None
    teacher: nn.Module | None = None
    folder: Path | str | None = None

    @classmethod
    def of(cls, model: Any = None, data: Any = None, task: Task | None = None, teacher: Any = None) -> "Provided":
        """Take the arguments of `qprune.fit`, in which ``data`` may also be the folder of a spec's data.

        Raises:
            SpecError: for a model or teacher that is no network.
            DataError: as `qprune.data.wrap_data`.
        """
        _check_network("model", model)
        _check_network("teacher", teacher)
        folder = data if isinstance(data, str | Path) else None
        own = None if data is None or folder is not None else wrap_data(data)
        return cls(model, own, task, teacher, folder)

    def in_place_of(self, spec: Spec, download: bool = False) -> Spec:
        """The spec without the parts that the user's own replace, since it does not describe those.

        What it leaves open about its images is what its network is trained for, see `qprune.data.with_presets`. With
        ``download``, its data may be fetched.

        Raises:
            SpecError: for weights that its network does not have.

        Example:
            >>> Provided.of(model=resnet18()).in_place_of(read_spec("digits/baseline")).model.is_own
            True
        """
        own: dict[str, Any] = {} if self.model is None else {"model": ModelSpec()}
        if download:
            own["data"] = with_download(spec.data)
        if self.data is not None:
            own["data"] = spec.data.for_own_data()
        if self.task is not None:
            own["task"] = TaskSpec("")
        if self.teacher is not None:
            table = evolve(spec.train.teacher or TeacherSpec(), run="")
            own["train"] = evolve(spec.train, teacher=table)
        return with_presets(evolve(spec, **own))

    def with_presets(self, spec: Spec) -> Spec:
        """The spec of an earlier run of a chain, with what its network says about images; not one of the user's own.

        Raises:
            SpecError: for weights that its network does not have.
        """
        return spec if self.model is not None else with_presets(spec)

    def load(self, spec: Spec) -> Splits:
        """The data with its `DataInfo`: the user's own if there is one, else that of the spec.

        Raises:
            DataError: as `qprune.data.load_data`, or if data that was handed over does not say what is needed of it.
        """
        return load_data(spec.data, spec.seed) if self.data is None else evolve(self.data, info=self.describe(spec))

    def describe(self, spec: Spec) -> DataInfo:
        """Classes, shape and sizes of the data; of the user's own one image is read.

        Raises:
            DataError: as `qprune.data.describe`, or if data that was handed over does not say what is needed of it.
            SpecError: if the network and the data differ in the number of classes.
        """
        if self.data is None:
            return describe(spec.data)
        train = self.data.train
        shape = image_shape(train)
        mean, std = usual_statistics("", shape[0])
        sizes = {} if isinstance(train, DataLoader) else {"train": len(train)}
        return DataInfo("", self._classes(spec, shape), shape, sizes, mean, std)

    def make_task(self, spec: Spec, info: DataInfo) -> Task:
        """The task: the user's own if there is one, else that of the spec.

        Raises:
            SpecError: as `qprune.tasks.make_task`.
        """
        return self.task or make_task(spec.task, info.classes, info.kind)

    def steps_per_epoch(self, spec: Spec, info: DataInfo) -> int:
        """Optimizer steps of one pass over the data; the short last batch counts.

        Raises:
            DataError: if a loader does not know.
        """
        if self.data is not None and isinstance(self.data.train, DataLoader):
            return loader_length(self.data.train)
        return steps_per_epoch(info.sizes["train"], spec.train.batch)

    def _classes(self, spec: Spec, shape: Shape) -> tuple[str, ...]:
        """The data's class names; else numbers, of the network's outputs or, for a zoo network, of the labels."""
        kind = None if self.task is not None else needed_kind(spec.task)
        if kind == "translation":
            return ()
        train = self.data.train  # type: ignore[union-attr]
        names = class_names(train)
        if self.model is None and not spec.model.layers:  # a network of the zoo is made for its classes
            count = len(names) or count_classes(train)
            if not count:
                raise DataError(
                    'data["train"] does not say how many classes it has, which the network is made for. Give the '
                    "data set an attribute classes, a list of their names."
                )
            return names or _numbers(count)
        outputs = _outputs(dense_network(spec.model, 0, shape, self.model), shape)
        if kind == "classification" and names and len(names) != outputs:  # names may be of images, not of pixels
            raise SpecError(
                f"The network gives {outputs:,} values per image, and the data has {len(names):,} classes; give the "
                f"last layer {len(names):,} outputs."
            )
        return names if len(names) == outputs else _numbers(outputs)


NOTHING = Provided()


def _check_network(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, nn.Module):
        what = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise SpecError(f"{name} must be a network, an nn.Module; received {what}. Make one, and hand that over.")


def steps_per_epoch(images: int, batch: int) -> int:
    """Optimizer steps of one pass over the data; the short last batch counts."""
    return -(-images // batch)


def loader_length(loader: DataLoader[Any]) -> int:
    """Batches of a loader."""
    try:
        return len(loader)
    except TypeError as error:
        raise DataError('data["train"] must know how many batches it has; give its dataset a length.') from error


def _outputs(net: nn.Module, shape: Shape) -> int:
    flow = trace(net, torch.zeros(2, *shape, device="meta"))
    made = [flow.calls[index].shape for index in flow.outputs if index >= 0]
    return made[0][1] if made and len(made[0]) > 1 else 0


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
