"""`Experiment`: a spec made ready to train, with its data, network, driver and trainer; `prepare` builds it."""

import copy
import json
import logging
import platform
import re
from collections.abc import Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from qprune.assemble import assemble
from qprune.data import DataInfo, Splits, describe, eval_loader, load_data, mix, train_loader, wrap_data
from qprune.errors import CheckpointError, DataError, SpecError
from qprune.exact import make_exact
from qprune.flow import trace
from qprune.layers import sites
from qprune.plan import Plan, make_plan
from qprune.report import forecast, merit, summarize
from qprune.schedules import to_steps
from qprune.shrink import rebuild, restore_masks
from qprune.spec import Spec, TrainSpec, minutes, spec_to_toml
from qprune.tasks import Task, make_task
from qprune.training import ranks
from qprune.training.averaging import make_average
from qprune.training.callbacks import Callback
from qprune.training.checkpoint import load_state, replaced
from qprune.training.compiling import graphs_compiled
from qprune.training.csv_logger import CSVLogger
from qprune.training.driver import ScheduleDriver
from qprune.training.evaluation import evaluate
from qprune.training.event_files import TensorBoard
from qprune.training.history import History
from qprune.training.model_checkpoint import ModelCheckpoint
from qprune.training.nan import TerminateOnNaN
from qprune.training.opening import choose_device, load_model
from qprune.training.optimizers import check_lr_schedule, make_lr_schedule, make_optimizer
from qprune.training.panels import panels_of
from qprune.training.run import Run
from qprune.training.shrinking import Shrinker
from qprune.training.trainer import Trainer

log = logging.getLogger(__name__)


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
    torch.manual_seed(spec.seed)
    splits = wrap_data(data) if data is not None else load_data(spec.data, spec.seed)
    classes, shape = _facts(spec, splits, model)
    task = task or make_task(spec.task, classes, splits.info.kind if splits.info else None)
    net = model if model is not None else assemble(spec, len(classes), shape)  # type: ignore[arg-type]
    cuts = spec.train.shrink != "never" or spec.numerics == "exact" or (init or {}).get("cuts")
    whole = copy.deepcopy(net) if cuts else None
    if init is not None:
        inherit(net, init, str(spec.init))
    if spec.numerics == "exact":
        _make_exact(spec, net, shape, init is not None)
    chosen = choose_device(device)
    net.to(chosen)
    trainer = _trainer(spec, net, task, splits, shape, chosen)
    if ranks.rank():  # the network is the same everywhere, dropout is not
        torch.manual_seed(int(mix(spec.seed, ranks.rank())[0] >> 1))
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
    train, loading = spec.train, _loading(spec, device)
    loader = train_loader(splits.train, seed=spec.seed, **loading)
    val = splits.val and eval_loader(splits.val, **loading)
    per_epoch = _length(loader)
    steps = to_steps(train.length, per_epoch)
    optimizer = make_optimizer(train.optimizer, net)
    average = make_average(net, train.ema) if train.ema else None
    example = torch.zeros(2, *shape, device="meta")
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
        clip_norm=train.clip_norm,
        compile="inductor" if train.compile else None,
    )


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


def _loading(spec: Spec, device: torch.device) -> dict[str, Any]:
    shard = (ranks.rank(), ranks.world())
    numbers = {"batch": spec.train.batch, "workers": spec.data.workers, "prefetch": spec.data.prefetch}
    return numbers | {"device": device, "shard": shard}


def _length(loader: DataLoader[Any]) -> int:
    try:
        return len(loader)
    except TypeError as error:
        raise DataError('data["train"] must know how many batches it has; give its dataset a length.') from error


def train(
    experiment: Experiment,
    run: Run,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> History:
    """Train to the end and leave the run folder complete: model, history, scores of every split, costs.

    Args:
        experiment: what `prepare` made.
        run: the folder.
        callbacks: called after the built-in ones, before the checkpoint is written.
        resume: go on from ``last.pt``, if it is there.

    Returns:
        the history, with `History.scores` of the model in ``model.pt`` and `History.run`.
    """
    trainer, spec = experiment.trainer, experiment.spec
    facts: dict[str, Any] = {name: getattr(experiment, name) for name in ("classes", "shape", "palette")}
    described = experiment.own or spec.numerics == "exact"  # a network that its spec alone does not give
    own = torch.zeros(1, *experiment.shape) if described else None
    checkpoint = ModelCheckpoint(run.path, spec=spec_to_toml(spec), **_interval(trainer, spec), **facts, own=own)
    pictures = panels_of(trainer, experiment.splits)
    built_in = [TerminateOnNaN(), CSVLogger(run.history), TensorBoard(run.tensorboard, pictures)]
    trainer.use([*built_in, *callbacks, checkpoint])
    trainer.history.run = run.path
    if resume and run.resumable:
        trainer.resume_from(run.read_last())
    before = graphs_compiled() if spec.train.compile else 0
    history = trainer.fit()
    graphs = {"graphs": graphs_compiled() - before} if spec.train.compile else {}
    if graphs:
        log.info("%d graphs were compiled.", graphs["graphs"])
    if not history.interrupted:
        ranks.wait_for_all()  # the writer may still be at model.pt
        _report(experiment, run, _environment(trainer.device) | graphs)
    ranks.wait_for_all()
    return history


def _interval(trainer: Trainer, spec: Spec) -> dict[str, Any]:
    interval = spec.train.checkpoint_every
    in_steps = interval is not None and minutes(interval) is None
    every = to_steps(interval, trainer.steps_per_epoch) if in_steps and interval is not None else None
    return {"every": every, "minutes": minutes(interval)}


def _report(experiment: Experiment, run: Run, environment: dict[str, Any]) -> None:
    """Score the model of ``model.pt`` on every split but the training one, and write ``report.json``."""
    trainer, spec = experiment.trainer, experiment.spec
    content = load_model(run.inside(run.model))
    rebuild(trainer.net, content["cuts"], run.model)
    load_state(trainer.net, content["state"], run.model)
    for name in ("val", "test"):
        data = getattr(experiment.splits, name)
        if data is not None:
            loader = eval_loader(data, **_loading(spec, trainer.device))
            options = (trainer.device, trainer.channels_last)
            trainer.history.scores[name] = evaluate(trainer.net, experiment.task, loader, *options)
    task = experiment.task
    metric = merit(trainer.history.scores.get("test", {}).get(task.monitor), task.mode)
    costs = summarize(_masked(experiment, content), experiment.shape, metric=metric).to_dict()["total"]
    if spec.numerics == "exact" and experiment.whole is not None:  # what masks dropped was gone from the start
        dense = summarize(experiment.whole, experiment.shape).to_dict()["total"]
        costs |= {name: dense[name] for name in ("parameters", "macs", "features", "features_with_norms")}
    report = {"name": spec.name, "init": spec.init, "step": content["step"], "steps": trainer.steps}
    report |= {
        "monitor": task.monitor,
        "mode": task.mode,
        "scores": trainer.history.scores,
        "costs": costs,
        "environment": environment,
    }
    if trainer.writes:
        with replaced(run.report) as file:
            file.write(json.dumps(report, indent=2).encode())


def _masked(experiment: Experiment, content: dict[str, Any]) -> nn.Module:
    """The trained network with its masks, of which costs tell what it was and what is left."""
    trainer, whole = experiment.trainer, experiment.whole
    if not content["cuts"]["cuts"] or whole is None or experiment.spec.numerics == "exact":
        return trainer.net
    restore_masks(whole, content["cuts"])
    active = {site.name: site.quant.active for site in sites(trainer.net) if site.quant is not None}
    for site in sites(whole):
        if site.quant is not None:
            site.quant.active.copy_(active[site.name])
    return whole


def _environment(device: torch.device) -> dict[str, Any]:
    processor = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    )
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    where = {"device": str(device), "processor": processor, "processes": ranks.world()}
    return where | {"threads": torch.get_num_threads()} | versions


def plan_spec(spec: Spec, per_epoch: int | None = None) -> Plan:
    """The plan of a spec, with what its network costs before and after; nothing is trained or read.

    Args:
        spec: what to plan.
        per_epoch: optimizer steps of one epoch; by default from the size of the data set.

    Raises:
        PlanError: for rules or a learning-rate schedule that cannot work.
        SpecError: for a task that the data is not for.
    """
    info = describe(spec.data)
    make_task(spec.task, info.classes, info.kind)
    with torch.random.fork_rng(devices=[]):
        net = assemble(spec, len(info.classes), info.shape)
        if spec.numerics == "exact":
            make_exact(net, torch.zeros(2, *info.shape, device="meta"))
    per_epoch = per_epoch or steps_per_epoch(info.sizes["train"], spec.train.batch)
    steps = to_steps(spec.train.length, per_epoch)
    check_lr_schedule(spec.train.lr_schedule, steps, per_epoch)
    flow = trace(net, torch.zeros(2, *info.shape, device="meta"))
    plan = make_plan(net, flow, steps_per_epoch=per_epoch, steps=steps)
    return evolve(plan, cost=forecast(net, plan, info.shape))


def steps_per_epoch(images: int, batch: int) -> int:
    """Optimizer steps of one pass over the data; the short last batch counts.

    Example:
        >>> steps_per_epoch(50_000, 128)
        391
    """
    return -(-images // batch)


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


def inherit(net: nn.Module, content: dict[str, Any], origin: str) -> None:
    """Take over parameters, statistics and compressors of a trained model; never its optimizer or its clock.

    Compressors that the model does not have start fresh.

    Args:
        net: the network that takes over, in place.
        content: content of the ``model.pt``.
        origin: its name, for errors.

    Raises:
        CheckpointError: if the model is of another network, or has a mask or quantizer that ``net`` has no place for.
    """
    masked = {site.name for site in sites(net) if site.mask is not None}
    cut = {f"{path}.{side}" for path, entry in content["cuts"]["cuts"].items() for side in entry["masks"]}
    _check_homes(cut - masked, origin)
    rebuild(net, content["cuts"], origin)
    state, own = content["state"], net.state_dict()
    _check_homes({match[1] for key in state if key not in own and (match := _COMPRESSOR.fullmatch(key))}, origin)
    load_state(net, state, origin)


def _check_homes(homeless: set[str], origin: str) -> None:
    if homeless:
        first = sorted(homeless)[0].replace("_mask", "").replace("_quant", "")
        raise CheckpointError(
            f'{origin} has masks or quantizers at {len(homeless)} sites where this network has none, "{first}" first. '
            'Add a rule for them; [[prune]] with schedule = { kind = "inherited" } keeps masks as they are.'
        )


_COMPRESSOR = re.compile(r"(.*(?:input|weight|output)_(?:mask|quant))\.\w+")
