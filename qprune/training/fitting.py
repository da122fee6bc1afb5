"""`train`: an experiment is trained to the end, and what it leaves is written."""

import json
import logging
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qprune.costs import merit, summarize
from qprune.data import eval_loader
from qprune.host import on_host
from qprune.layers import sites
from qprune.processor import processor_name
from qprune.schedules import to_steps
from qprune.shrinking import rebuild, restore_masks
from qprune.spec import Spec, minutes, spec_to_toml
from qprune.training import ranks
from qprune.training.callbacks import Callback
from qprune.training.checkpoint import load_state, replaced, save
from qprune.training.claim import Claim
from qprune.training.compiling import graphs_compiled
from qprune.training.csv_logger import CSVLogger
from qprune.training.evaluation import evaluate
from qprune.training.experiment import Experiment, loading_options
from qprune.training.history import History
from qprune.training.model_checkpoint import ModelCheckpoint
from qprune.training.nan import TerminateOnNaN
from qprune.training.opening import load_model
from qprune.training.rescue import Rescue
from qprune.training.tensorboard import TensorBoard, panels_of
from qprune.training.trackers import TENSORBOARD, make_trackers
from qprune.training.trainer import Trainer

log = logging.getLogger(__name__)

TOLD = ("spec.toml", "history.csv", "report.json", "report.html")  # files of a run that trackers are given


def train(
    experiment: Experiment,
    claim: Claim,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    page: Callable[[Path], object] = Path,
) -> History:
    """Train to the end and leave the run folder complete: model, history, scores of every split, costs.

    Args:
        experiment: what `prepare` made.
        claim: the folder.
        callbacks: called after the built-in ones, before the checkpoint is written.
        resume: go on from ``last.pt``, if it is there.
        page: writes a page into the folder of the finished run, for trackers that are given it; by default nothing.

    Returns:
        the history, with `History.scores` of the model in ``model.pt`` and `History.run`.

    Raises:
        CheckpointError: if ``last.pt`` is of another spec or network; or if the folder goes missing meanwhile.
    """
    trainer, spec, run = experiment.trainer, experiment.spec, claim.run
    spec_toml = spec_to_toml(spec)
    facts: dict[str, Any] = {name: getattr(experiment, name) for name in ("classes", "shape", "palette")}
    checkpoint = ModelCheckpoint(
        run.path, spec=spec_toml, **_interval(trainer, spec), **facts, example=experiment.example
    )
    rows, trackers = CSVLogger(run.history), make_trackers(spec)
    points = [TensorBoard(run.tensorboard, panels_of(trainer, experiment.splits))] * (TENSORBOARD in spec.train.log)
    rescue = Rescue(claim, spec_toml, [rows, *points, checkpoint])
    watching = [TerminateOnNaN(), rows, *points, *trackers, *callbacks]
    trainer.use([rescue, *watching, rescue, checkpoint])  # callbacks may take long
    trainer.history.run = run.path
    if resume and run.resumable:
        trainer.resume_from(run.read_last(spec_toml))
    before = graphs_compiled() if spec.train.compile else 0
    history = trainer.fit()
    graphs = {"graphs": graphs_compiled() - before} if spec.train.compile else {}
    if graphs:
        log.info("%d graphs were compiled.", graphs["graphs"])
    rescue.tell()
    if not history.interrupted:
        ranks.wait_for_all()  # the writer may still be at model.pt
        _report(experiment, rescue, _environment(trainer.device) | graphs)
        if trackers and trainer.writes:
            page(run.path)
        for tracker in trackers:
            tracker.finish(history.scores, [run.path / name for name in TOLD])
    ranks.wait_for_all()
    return history


def _interval(trainer: Trainer, spec: Spec) -> dict[str, Any]:
    interval = spec.train.checkpoint_every
    in_steps = interval is not None and minutes(interval) is None
    every = to_steps(interval, trainer.steps_per_epoch) if in_steps and interval is not None else None
    return {"every": every, "minutes": minutes(interval)}


def _report(experiment: Experiment, rescue: Rescue, environment: dict[str, Any]) -> None:
    """Score the model of ``model.pt`` on every split but the training one, and write ``report.json``."""
    trainer, spec, run = experiment.trainer, experiment.spec, rescue.run
    content = load_model(run.inside(run.model))
    rebuild(trainer.net, content["cuts"], run.model)
    load_state(trainer.net, content["state"], run.model)
    for name in ("val", "test"):
        data = getattr(experiment.splits, name)
        if data is not None:
            loader = eval_loader(data, **loading_options(spec, trainer.device))
            options = (trainer.device, trainer.channels_last)
            trainer.history.scores[name] = evaluate(trainer.net, experiment.task, loader, *options)
    task = experiment.task
    metric = merit(trainer.history.scores.get("test", {}).get(task.monitor), task.mode)
    costs = summarize(_masked(experiment, content), experiment.shape, metric=metric).to_dict()["total"]
    if spec.arithmetic.remakes and experiment.whole is not None:  # what masks dropped was gone from the start
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
        rescue.look()
        if rescue.moved:
            save(rescue.run.model, content)
        with replaced(rescue.run.report) as file:
            file.write(json.dumps(report, indent=2).encode())
        rescue.tell()


def _masked(experiment: Experiment, content: dict[str, Any]) -> nn.Module:
    """The trained network with its masks, of which costs tell what it was and what is left."""
    trainer, whole = experiment.trainer, experiment.whole
    if not content["cuts"]["cuts"] or whole is None or experiment.spec.arithmetic.remakes:
        return trainer.net
    restore_masks(whole, content["cuts"])
    quants = {site.name: site.quant for site in sites(trainer.net) if site.quant is not None}
    active = dict(zip(quants, on_host([quant.active for quant in quants.values()]), strict=True))
    for site in sites(whole):
        if site.quant is not None:
            site.quant.active.copy_(active[site.name])
    return whole


def _environment(device: torch.device) -> dict[str, Any]:
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    where = {"device": str(device), "processor": processor, "processes": ranks.world()}
    return where | {"threads": torch.get_num_threads()} | versions
