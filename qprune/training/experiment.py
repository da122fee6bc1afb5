"""`Experiment`: a spec made ready to train, with its data, network, driver and trainer; `prepare` builds it."""

from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from qprune.assemble import assemble
from qprune.data import DataInfo, EpochSampler, Splits, describe, eval_loader, load_data, mix, train_loader, wrap_data
from qprune.errors import DataError, SpecError
from qprune.exact import make_exact
from qprune.flow import Flow, trace, unhooked_copy
from qprune.schedules import to_steps
from qprune.spec import Spec, TrainSpec
from qprune.tasks import Task, make_task
from qprune.training import ranks
from qprune.training.averaging import make_average
from qprune.training.batches import check_images, check_labels, check_output, fewest_images, part_size
from qprune.training.driver import ScheduleDriver
from qprune.training.inheriting import inherit
from qprune.training.opening import choose_device
from qprune.training.optimizers import make_lr_schedule, make_optimizer
from qprune.training.random_state import seed_generators
from qprune.training.shrinking import Shrinker
from qprune.training.trainer import Trainer


@frozen(eq=False)
class Experiment:
    """Everything that one run needs, checked and planned; nothing has been trained or written yet.

    Attributes:
        spec: what to do.
        splits: the data.
        classes: names of the classes.
        shape: ``(C, H, W)`` of one image.
        task: loss and metrics.
        trainer: the loop, with network, optimizer and driver.
        whole: the network with all of its channels, where training cuts some.
        own: whether the network is one of the user's own.
    """

    spec: Spec
    splits: Splits
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    task: Task
    trainer: Trainer
    whole: nn.Module | None = None
    own: bool = False

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """One colour per class, where classes have one."""
        return self.splits.info.palette if self.splits.info else ()


def prepare(
    spec: Spec,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    device: str | None = None,
    init: dict[str, Any] | None = None,
) -> Experiment:
    """Load the data, build the network, take over ``init``, plan, and set up the loop.

    Args:
        spec: what to do.
        model: a network of the user's own, with its compressors in place.
        data: datasets or loaders of the user's own.
        task: in place of the spec's.
        device: where to train; a GPU if there is one.
        init: content of the ``model.pt`` that the network starts from.

    Raises:
        DataError: for data that is missing or malformed.
        SpecError: for a network or task that cannot be made, or that the data is not for.
        PlanError: for rules that cannot work.
        CheckpointError: if ``init`` does not fit the network.
    """
    seed_generators(spec.seed)
    splits = wrap_data(data) if data is not None else load_data(spec.data, spec.seed)
    check_images(splits)
    classes, shape = _facts(spec, splits, model)
    task = task or make_task(spec.task, classes, splits.info.kind if splits.info else None)
    net = model if model is not None else assemble(spec, len(classes), shape)  # type: ignore[arg-type]
    cuts = spec.train.shrink != "never" or spec.numerics == "exact" or (init or {}).get("cuts")
    whole = unhooked_copy(net) if cuts else None
    if init is not None:
        inherit(net, init, str(spec.init))
    if spec.numerics == "exact":
        _make_exact(spec, net, shape, init is not None)
    chosen = choose_device(device)
    net.to(chosen)
    trainer = _trainer(spec, net, task, splits, shape, chosen)
    if ranks.rank():  # the network is the same everywhere, dropout is not
        seed_generators(int(mix(spec.seed, ranks.rank())[0] >> 1))
    return Experiment(spec, splits, classes, shape, task, trainer, whole, model is not None)


def _make_exact(spec: Spec, net: nn.Module, shape: tuple[int, ...], started: bool) -> None:
    trained = started or not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    if not trained:
        raise SpecError(
            'numerics = "exact" folds normalizations at the start of a run, and they have no statistics yet; name a '
            f"trained run (init in {spec.name})."
        )
    make_exact(net, torch.zeros(2, *shape, device="meta"))


def _trainer(
    spec: Spec,
    net: nn.Module,
    task: Task,
    splits: Splits,
    shape: tuple[int, ...],
    device: torch.device,
) -> Trainer:
    train, loading = spec.train, loading_options(spec, device)
    check_labels(splits, task)
    loader = train_loader(splits.train, seed=spec.seed, **loading)
    val = splits.val and eval_loader(splits.val, **loading)
    per_epoch = _length(loader)
    steps = to_steps(train.length, per_epoch)
    optimizer = make_optimizer(train.optimizer, net)
    average = make_average(net, train.ema) if train.ema else None
    example = torch.zeros(2, *shape, device="meta")
    flow = trace(net, example)
    check_output(task, flow, shape, spec.data.name if splits.info else "your own")
    driver = ScheduleDriver(
        net,
        example,
        per_epoch,
        optimizer=optimizer,
        steps=steps,
        seed=spec.seed,
        average=average and average.module,
        together=train.compile,
    )
    return Trainer(
        net,
        task,
        train=loader,
        val=val,
        optimizer=optimizer,
        lr_schedule=make_lr_schedule(train.lr_schedule, optimizer, steps, per_epoch),
        driver=driver,
        shrinker=None  # exact numerics cut at the start
        if spec.numerics == "exact"
        else _shrinker(train, net, driver, optimizer, example, steps, average and average.module),
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
    )


def _part_size(flow: Flow, loader: DataLoader[Any]) -> int:
    sampler = loader.sampler
    other = sampler.other_batch(least=2) if isinstance(sampler, EpochSampler) else None
    return part_size(flow, fewest_images(loader), other)


def _shrinker(
    train: TrainSpec,
    net: nn.Module,
    driver: ScheduleDriver,
    optimizer: Optimizer,
    example: Tensor,
    steps: int,
    average: nn.Module | None,
) -> Shrinker | None:
    if train.shrink == "never":
        return None
    return Shrinker(
        net,
        driver,
        optimizer,
        example=example,
        steps=steps,
        average=average,
        when=train.shrink,
        channels_last=train.channels_last,
        compiled=train.compile,
    )


def loading_options(spec: Spec, device: torch.device) -> dict[str, Any]:
    """How the spec's data is loaded by this process, for `qprune.data.train_loader` and `qprune.data.eval_loader`.

    Example:
        >>> loading_options(read_spec("digits/baseline"), torch.device("cpu"))["batch"]
        64
    """
    shard = (ranks.rank(), ranks.world())
    numbers = {"batch": spec.train.batch, "workers": spec.data.workers, "prefetch": spec.data.prefetch}
    return numbers | {"device": device, "shard": shard}


def _length(loader: DataLoader[Any]) -> int:
    try:
        return len(loader)
    except TypeError as error:
        raise DataError('data["train"] must know how many batches it has; give its dataset a length.') from error


def _facts(spec: Spec, splits: Splits, model: nn.Module | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if splits.info is not None:
        return splits.info.classes, splits.info.shape
    if model is None:
        info: DataInfo = describe(spec.data)
        return info.classes, info.shape
    image, _ = _first(splits.train)
    return _class_names(model, image), tuple(image.shape)


def _first(data: Any) -> Any:
    batch = next(iter(data)) if isinstance(data, DataLoader) else data[0]
    return (batch[0][0], batch[1][0]) if isinstance(data, DataLoader) else batch


def _class_names(net: nn.Module, image: Any) -> tuple[str, ...]:
    flow = trace(net, image[None])
    return tuple(str(index) for index in range(flow.calls[flow.outputs[0]].shape[1]))
