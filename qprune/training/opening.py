"""Opening a finished run: its network from the folder alone, its scores, its classes."""

import copy
import os
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import nn

from qprune.assemble import assemble, dense_network
from qprune.data import Splits, eval_loader, load_data
from qprune.dense import without_compressors
from qprune.errors import CheckpointError, DataError, PlanError, QpruneError
from qprune.graph import net_from
from qprune.shrinking import rebuild
from qprune.spec import Spec
from qprune.tasks import Task, make_task
from qprune.training.checkpoint import load, load_state
from qprune.training.evaluation import evaluate, place
from qprune.training.file_checks import (
    batch_of,
    check_images,
    check_network,
    is_about_images,
    is_cut_record,
    spec_in,
    without_download,
    workers_of,
)
from qprune.training.ranks import device_of_rank
from qprune.training.run import Run
from qprune.zoo import deployed

KINDS = {"state": dict, "spec": str, "classes": list, "shape": list, "cuts": dict}  # of the parts of a model.pt
NOTHING_CUT: dict[str, Any] = {"cuts": {}, "folds": []}


@frozen(eq=False)
class Opened:
    """A trained network and what is known about it.

    Attributes:
        net: the network, in eval mode.
        spec: what it was trained by; a network that `qprune.save` wrote has none, and says so.
        classes: names of its classes.
        shape: ``(C, H, W)`` of an image.
        palette: one colour per class, where classes have one.
        data: data of the user's own, in place of what the spec names.
        whole: whether all channels that the network had before training are still there.
    """

    net: nn.Module
    _spec: Spec | None
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    palette: tuple[tuple[int, int, int], ...] = ()
    data: Splits | None = None
    whole: bool = True

    @property
    def spec(self) -> Spec:
        """What it was trained by.

        Raises:
            CheckpointError: if the file holds the network alone.
        """
        if self._spec is None:
            raise CheckpointError(
                "The file holds a network alone, without data, task or training. Open it with qprune.load, and score "
                "it with your own data and loop."
            )
        return self._spec

    def split(self, name: str) -> Any:
        """One part of the data, whosever it is.

        Args:
            name: ``"train"`` (without augmentation), ``"val"`` or ``"test"``.

        Raises:
            DataError: if the data is not here, or has no such split.
        """
        part = getattr(self.splits(), name)
        if part is None:
            raise DataError(f'The data has no "{name}" split.')
        return part

    def splits(self) -> Splits:
        """All parts of the data, whosever it is.

        Raises:
            DataError: if the data is not here.
        """
        return load_data(without_download(self.spec.data), self.spec.seed) if self.data is None else self.data

    def dense(self) -> nn.Module | None:
        """The network without masks and quantizers, in its first size, for comparison; its weights mean nothing.

        Returns:
            None for a network of the user's own that was cut while it trained: nobody knows any more what it was.
        """
        if self.spec.model.is_own:
            return without_compressors(deployed(self.net)) if self.whole else None
        with torch.random.fork_rng(devices=[]):
            net = dense_network(self.spec.model, len(self.classes), self.shape)
        return without_compressors(deployed(net))


def open_model(run: str | os.PathLike[str], root: Path, model: nn.Module | None = None) -> Opened:
    """Open a run folder, a run's name, or a ``model.pt``.

    Args:
        run: which.
        root: where run folders lie.
        model: the network, if the run was trained with one of the user's own; it is copied.

    Raises:
        CheckpointError: if there is none, it is damaged or of another network.
    """
    path = model_file(run, root)
    content = load_model(path)
    spec = spec_in(content["spec"], path)
    check_images(content["shape"], spec, path)
    # a network that its numerics remade cannot be made again from what it was before; its calls are the only way
    alone = "graph" in content and (model is None or (spec is not None and spec.arithmetic.remakes))
    try:
        if alone:
            net = net_from(content["graph"], content["state"], path)  # of the network as it was cut
        else:
            net = _made(content, spec, path, model)
        load_state(net, content["state"], path)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_AS_GIVEN}" if model is not None else str(error)) from error
    palette = tuple(tuple(colour) for colour in content.get("palette", ()))
    return Opened(
        net.eval(), spec, tuple(content["classes"]), tuple(content["shape"]), palette, whole=not content["cuts"]["cuts"]
    )


_AS_GIVEN = "model= is the network as it was handed to fit, on which the rules of the run then act."


def _made(content: dict[str, Any], spec: Spec | None, path: Path, model: nn.Module | None) -> nn.Module:
    """The network as it was built, cut as it was cut."""
    if model is None and spec is None:
        raise CheckpointError(f"{path} holds neither a spec nor a graph. Hand the network over: model=.")
    if model is None and spec is not None and spec.model.is_own:
        raise CheckpointError(
            f"{path} is of a network of the user's own, whose code is needed: its calls could not be followed. Hand "
            "the network over, as it was before training: model=."
        )
    if spec is None:
        net = copy.deepcopy(model)
        assert net is not None
    else:
        if model is None:
            check_network(spec, content, path)
        try:
            net = assemble(spec, len(content["classes"]), tuple(content["shape"]), model)
        except PlanError as error:
            raise CheckpointError(f"{path} is of another network: {error}") from error
    rebuild(net, content["cuts"], path)
    return net


def load_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Content of a ``model.pt``; see `ModelCheckpoint` for its parts.

    Raises:
        CheckpointError: if it is missing, damaged, or holds something else.

    Example:
        >>> load_model("runs/digits/baseline/model.pt")["shape"]
        [1, 8, 8]
    """
    content = {"cuts": NOTHING_CUT} | load(path)
    parts = all(isinstance(content.get(name), kind) for name, kind in KINDS.items())
    if not parts or not is_cut_record(content["cuts"]) or not is_about_images(content):
        raise CheckpointError(f"{path} holds no trained model; give the run's folder or its model.pt.")
    return content


def is_trained(run: str | os.PathLike[str], root: Path, scored: bool = False) -> bool:
    """Whether there is such a run and it is finished, with its report if ``scored``, before which it may be killed."""
    try:
        found = Run(model_file(run, root).parent)
    except CheckpointError:
        return False
    return not scored or found.report.is_file() or not found.spec.is_file()


def model_file(run: str | os.PathLike[str], root: Path) -> Path:
    """The ``model.pt`` of a run.

    Raises:
        CheckpointError: if there is no such run, it is not finished, or its ``model.pt`` is a link to elsewhere.

    Example:
        >>> model_file("digits/baseline", Path("runs")).as_posix()
        'runs/digits/baseline/model.pt'
    """
    if Path(run).is_file():
        return Path(run)
    found = Run.open(run, root)
    if not found.finished:
        raise CheckpointError(f"{found.path} is not finished, so it has no model yet. Go on with --resume.")
    return found.inside(found.model)


def evaluate_model(
    opened: Opened,
    split: str,
    *,
    task: Task | None = None,
    device: str | None = None,
    batch: int | None = None,
    workers: int | None = None,
) -> dict[str, float]:
    """Loss and metrics of an opened model on one split.

    Args:
        opened: the model.
        split: ``"train"`` (without augmentation), ``"val"`` or ``"test"``.
        task: in place of the spec's.
        device: where to compute; a GPU if there is one.
        batch: images at a time; by default those of the run, as far as `batch_of` allows.
        workers: processes that load images; by default those of the run, as far as `workers_of` allows.

    Raises:
        DataError: if the data is not here, or has no such split.
    """
    spec, part = opened.spec, opened.split(split)
    where = choose_device(device)
    place(opened.net, where, spec.train.channels_last)
    batch = batch_of(spec, opened.shape) if batch is None else batch
    loader = eval_loader(part, batch=batch, workers=workers_of(spec) if workers is None else workers, device=where)
    task = task or make_task(spec.task, opened.classes)
    return evaluate(opened.net, task, loader, where, spec.train.channels_last)


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; without one a GPU if there is one, else the CPU. Under torchrun each rank's own GPU.

    Raises:
        QpruneError: if this machine, or this torch, has no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    there = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device_of_rank(name) or there).device
    except (RuntimeError, AssertionError) as error:  # torch says the one for unknown names, the other for missing ones
        raise QpruneError(f'device must be one that is here; received "{name}". Try "{there}".') from error
