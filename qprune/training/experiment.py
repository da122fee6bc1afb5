"""`Experiment`: a spec made ready to train, with its data, network, driver and trainer; `prepare` builds it."""

import logging
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.utils.data import DataLoader

from qprune.assemble import assemble
from qprune.data import EpochSampler, Splits, eval_loader, mix, train_loader
from qprune.errors import ShrinkError, SpecError
from qprune.exact import make_exact
from qprune.flow import Flow, trace, unhooked_copy
from qprune.graph import graph_of
from qprune.schedules import to_steps
from qprune.spec import Spec
from qprune.tasks import Task
from qprune.training import ranks
from qprune.training.averaging import make_average
from qprune.training.batches import check_labels, check_output, fewest_images, part_size
from qprune.training.driver import ScheduleDriver
from qprune.training.evaluation import place
from qprune.training.inheriting import inherit
from qprune.training.opening import choose_device
from qprune.training.optimizers import make_lr_schedule, make_optimizer
from qprune.training.pretrained import start_from_weights
from qprune.training.provided import NOTHING, Provided, loader_length
from qprune.training.reproducibility import seed_generators
from qprune.training.shrinking import Shrinker
from qprune.training.switches import tell_switches
from qprune.training.teaching import check_layers, taught
from qprune.training.trainer import Trainer

log = logging.getLogger(__name__)


@frozen(eq=False)
class Experiment:
    """Everything that one run needs, checked and planned; nothing has been trained or written yet."""

    spec: Spec
    splits: Splits
    classes: tuple[str, ...]  # names of the classes
    shape: tuple[int, ...]  # (C, H, W) of one image
    task: Task  # loss and metrics
    trainer: Trainer  # the loop, with network, optimizer and driver
    whole: nn.Module | None = None  # the network with all of its channels, where training cuts some
    # an input by which the network's calls are followed at the end, for a run that its spec alone does not open; None
    # for any other
    example: Tensor | None = None

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """One colour per class, where classes have one."""
        return self.splits.facts.palette


def prepare(
    spec: Spec,
    provided: Provided = NOTHING,
    *,
    device: str | None = None,
    init: dict[str, Any] | None = None,
    teacher: nn.Module | None = None,
    begins: bool = True,
    download: bool = False,
) -> Experiment:
    """Load the data, build the network, take over ``init`` or weights, plan, and set up the loop.

    Args:
        spec: what to do.
        provided: network, data and task of the user's own, in place of the spec's.
        device: where to train; a GPU if there is one.
        init: content of the ``model.pt`` that the network starts from.
        teacher: the network that it learns from, `open_teacher`; moved to the device.
        begins: whether the run begins; one that is resumed does not need the file of ``model.weights`` again.
        download: fetch that file, if it is not on this machine.

    Raises:
        DataError: for data that is missing or malformed.
        SpecError: for a network or task that cannot be made, or that the data is not for.
        PlanError: for rules that cannot work, or layers of a teacher that the network has not.
        CheckpointError: if ``init`` does not fit the network, or weights do not or are not there.
    """
    seed_generators(spec.seed)
    splits = provided.load(spec)
    info = splits.facts
    classes, shape = info.classes, info.shape
    task = provided.make_task(spec, info)
    net = assemble(spec, len(classes), shape, provided.model)
    cuts = spec.train.shrink != "never" or spec.arithmetic.remakes or (init or {}).get("cuts")
    whole = unhooked_copy(net) if cuts else None
    if init is not None:
        inherit(net, init, str(spec.init))
    elif begins:
        start_from_weights(net, spec, len(classes), shape[0], download=download)
    if spec.arithmetic.remakes:
        _make_exact(spec, net, shape, init is not None or spec.model.start is not None)
    check_layers(spec, net)
    followed = _followed(spec, net, shape)
    chosen = choose_device(device)
    net.to(chosen, non_blocking=True)
    if teacher is not None:
        place(teacher, chosen, spec.train.channels_last)
    trainer = _trainer(spec, net, taught(task, teacher, spec.train.teacher), splits, shape, chosen)
    if ranks.rank():  # the network is the same everywhere, dropout is not
        seed_generators(int(mix(spec.seed, ranks.rank())[0] >> 1))
    return Experiment(spec, splits, classes, shape, task, trainer, whole, followed)


def _make_exact(spec: Spec, net: nn.Module, shape: tuple[int, ...], started: bool) -> None:
    if not started and any(map(_is_fresh, net.modules())):
        own = ", or train the network before it is handed over" if spec.model.is_own else ""
        raise SpecError(
            f'numerics = "{spec.numerics}" folds normalizations at the start of a run, and they have no statistics '
            f"yet; name a trained run (init in {spec.name}){own}."
        )
    make_exact(net, torch.zeros(2, *shape, device="meta"))


def _is_fresh(norm: nn.Module) -> bool:
    """Whether a normalization has the statistics with which it was made."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        return False
    return not bool(norm.running_mean.any()) and bool((norm.running_var == 1).all())


def _followed(spec: Spec, net: nn.Module, shape: tuple[int, ...]) -> Tensor | None:
    """The input by which a network is followed that its spec does not describe; where that fails, it is said now."""
    if not spec.model.is_own and not spec.arithmetic.remakes:
        return None
    example = torch.zeros(1, *shape)
    try:
        graph_of(unhooked_copy(net), example)  # as at the end
    except ShrinkError as error:
        if spec.arithmetic.remakes:
            raise SpecError(
                f'In numerics = "{spec.numerics}" a network is opened by its calls alone. {error}'
            ) from error
        if ranks.is_writer():
            log.warning("The run %s is opened with the network's code only, model=: %s", spec.name, error)
        return None
    return example


def _trainer(
    spec: Spec, net: nn.Module, task: Task, splits: Splits, shape: tuple[int, ...], device: torch.device
) -> Trainer:
    train, loading = spec.train, loading_options(spec, device)
    if ranks.is_writer():
        tell_switches(train, device)
    check_labels(splits, task)
    loader = train_loader(splits.train, seed=spec.seed, **loading)
    val = None if splits.val is None else eval_loader(splits.val, **loading)
    per_epoch = loader_length(loader)
    steps = to_steps(train.length, per_epoch)
    optimizer = make_optimizer(train.optimizer, net)
    average = make_average(net, train.ema) if train.ema else None
    example = torch.zeros(2, *shape, device="meta")
    flow = trace(net, example)
    check_output(task, flow, shape, splits.facts.name or "your own")
    both: dict[str, Any] = {"steps": steps, "average": average and average.module}
    driver = ScheduleDriver(
        net, example, per_epoch, optimizer=optimizer, seed=spec.seed, measure_all=bool(train.compile), **both
    )
    shrinker = None
    if train.shrink != "never" and not spec.arithmetic.remakes:  # else masks were cut at the start
        options: dict[str, Any] = {"when": train.shrink, "compiled": bool(train.compile), **both}
        shrinker = Shrinker(net, driver, optimizer, example=example, channels_last=train.channels_last, **options)
    return Trainer(
        net,
        task,
        train=loader,
        val=val,
        optimizer=optimizer,
        lr_schedule=make_lr_schedule(train.lr_schedule, optimizer, steps, per_epoch),
        driver=driver,
        shrinker=shrinker,
        average=average,
        steps=steps,
        steps_per_epoch=per_epoch,
        validate_every=to_steps(train.validate_every, per_epoch),
        device=device,
        channels_last=train.channels_last,
        precision=train.precision,
        accumulate=train.accumulate,
        part_size=_part_size(flow, loader),
        clip_norm=train.clip_norm,
        compile="inductor" if train.compile else None,
        compile_mode=train.compile if isinstance(train.compile, str) else None,
        tf32=train.tf32,
        cudnn_benchmark=train.cudnn_benchmark,
        recompute=train.recompute,
    )


def _part_size(flow: Flow, loader: DataLoader[Any]) -> int:
    sampler = loader.sampler
    other = sampler.other_batch(least=2) if isinstance(sampler, EpochSampler) else None
    return part_size(flow, fewest_images(loader), other)


def loading_options(spec: Spec, device: torch.device) -> dict[str, Any]:
    """How the spec's data is loaded by this process, for `qprune.data.train_loader` and `qprune.data.eval_loader`."""
    shard = (ranks.rank(), ranks.world())
    numbers = {"batch": spec.train.batch, "workers": spec.data.workers, "prefetch": spec.data.prefetch}
    return numbers | {"device": device, "shard": shard}
