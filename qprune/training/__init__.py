"""The training loop and what watches it."""

from qprune.training.callbacks import Callback, CallbackList, CSVLogger
from qprune.training.checkpoint import load as load_checkpoint
from qprune.training.driver import ScheduleDriver
from qprune.training.evaluation import evaluate
from qprune.training.event_files import TensorBoard
from qprune.training.experiment import Experiment, plan_spec, prepare, steps_per_epoch, train
from qprune.training.history import History
from qprune.training.model_checkpoint import ModelCheckpoint
from qprune.training.nan import TerminateOnNaN
from qprune.training.opening import Opened, choose_device, evaluate_model, is_trained, model_file, open_model
from qprune.training.optimizers import make_lr_schedule, make_optimizer
from qprune.training.progress import Progress
from qprune.training.run import Run, runs_root
from qprune.training.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "Experiment",
    "History",
    "ModelCheckpoint",
    "Opened",
    "Progress",
    "Run",
    "ScheduleDriver",
    "TensorBoard",
    "TerminateOnNaN",
    "Trainer",
    "choose_device",
    "evaluate",
    "evaluate_model",
    "is_trained",
    "load_checkpoint",
    "make_lr_schedule",
    "make_optimizer",
    "model_file",
    "open_model",
    "plan_spec",
    "prepare",
    "runs_root",
    "steps_per_epoch",
    "train",
]
