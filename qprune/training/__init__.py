"""The training loop and what watches it."""

from qprune.shrinking import evaluating
from qprune.training.averaging import make_average
from qprune.training.callbacks import Callback, CallbackError, CallbackList, LambdaCallback
from qprune.training.chain import (
    Overrides,
    SpecLike,
    choose_spec,
    init_run,
    missing_links,
    plan_chain,
    plan_run,
    stages,
)
from qprune.training.checkpoint import load as load_checkpoint
from qprune.training.checkpoint import save as save_checkpoint
from qprune.training.claim import check_run, claim_run
from qprune.training.csv_logger import CSVLogger
from qprune.training.driver import ScheduleDriver
from qprune.training.early_stopping import EarlyStopping
from qprune.training.evaluation import evaluate, place, to_device
from qprune.training.experiment import prepare
from qprune.training.file_checks import batch_of, check_images, is_about_images, spec_in, spec_of, workers_of
from qprune.training.fitting import train
from qprune.training.history import History
from qprune.training.model_checkpoint import ModelCheckpoint
from qprune.training.nan import TerminateOnNaN
from qprune.training.opening import (
    Opened,
    choose_device,
    evaluate_model,
    is_trained,
    load_model,
    model_file,
    open_model,
)
from qprune.training.optimizers import make_lr_schedule, make_optimizer
from qprune.training.pretrained import start_from_weights
from qprune.training.progress import Progress, Stage
from qprune.training.provided import Provided
from qprune.training.ranks import is_writer, joined
from qprune.training.reproducibility import determined, get_rng, set_rng
from qprune.training.run import Run, runs_root
from qprune.training.samples import few_samples, spread, view_of
from qprune.training.shrinking import Shrinker
from qprune.training.small_model import save_small
from qprune.training.switches import check_switches
from qprune.training.teaching import open_teacher
from qprune.training.tensorboard import LearningRateMonitor, TensorBoard
from qprune.training.trackers import check_trackers
from qprune.training.trainer import Trainer
from qprune.training.update import Update

__all__ = [
    "CSVLogger", "Callback", "CallbackError", "CallbackList", "EarlyStopping", "History", "LambdaCallback",
    "LearningRateMonitor", "ModelCheckpoint", "Opened", "Overrides", "Progress", "Provided", "Run", "ScheduleDriver",
    "Shrinker", "SpecLike", "Stage", "TensorBoard", "TerminateOnNaN", "Trainer", "Update", "batch_of", "check_images",
    "check_run", "check_switches", "check_trackers", "choose_device", "choose_spec", "claim_run", "determined",
    "evaluate", "evaluate_model", "evaluating", "few_samples", "get_rng", "init_run", "is_about_images", "is_trained",
    "is_writer", "joined", "load_checkpoint", "load_model", "make_average", "make_lr_schedule", "make_optimizer",
    "missing_links", "model_file", "open_model", "open_teacher", "place", "plan_chain", "plan_run", "prepare",
    "runs_root", "save_checkpoint", "save_small", "set_rng", "spec_in", "spec_of", "spread", "stages",
    "start_from_weights", "to_device", "train", "view_of", "workers_of",
]  # fmt: skip
