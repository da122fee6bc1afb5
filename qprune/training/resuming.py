"""Collects the state of a training for a checkpoint, and restores it part by part."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from qprune.errors import CheckpointError, QpruneError
from qprune.training import ranks
from qprune.training.checkpoint import check_dtypes, load_state
from qprune.training.reproducibility import get_rng

if TYPE_CHECKING:
    from qprune.training.trainer import Trainer

SOURCE = "The checkpoint"
# the shrinker is the first, so that the others fit the network as it was cut
PARTS = ("shrinker", "optimizer", "update", "lr_schedule", "driver", "average", "history", "meter", "callbacks")


def training_state(trainer: "Trainer") -> dict[str, Any]:
    """The state of a training, of every process; restoring it leads to the same result."""
    states = {name: part.state_dict() for name, part in ({"net": trainer.net} | _parts(trainer)).items()}
    own = {"rng": get_rng(trainer.device) if trainer.rng is None else trainer.rng}
    if hasattr(trainer.task, "state_dict"):
        own["task"] = trainer.task.state_dict()
    return states | {"step": trainer.step, "lr": trainer.lr, "ranks": ranks.gathered(own)}


def _parts(trainer: "Trainer") -> dict[str, Any]:
    return {name: part for name in PARTS if (part := getattr(trainer, name)) is not None}


def take_up(trainer: "Trainer", checkpoint: dict[str, Any]) -> None:
    """Restore a training from what `training_state` gave."""
    parts = _parts(trainer)
    _check(trainer, checkpoint, parts)
    shrinker = parts.pop("shrinker", None)
    if shrinker is not None:
        with explaining_misfit("shrinker"):
            load_part(shrinker, checkpoint["shrinker"], SOURCE)
        trainer.update.renew()
    with explaining_misfit("net"):
        load_state(trainer.net, checkpoint["net"], SOURCE)
    for name, part in parts.items():
        with explaining_misfit(name):
            load_part(part, copy.deepcopy(checkpoint[name]), SOURCE)
    with explaining_misfit("step"):
        trainer.step, trainer.lr = int(checkpoint["step"]), float(checkpoint["lr"])
    with explaining_misfit("ranks"):
        _take_up_own(trainer, checkpoint["ranks"])


def _check(trainer: "Trainer", checkpoint: dict[str, Any], parts: dict[str, Any]) -> None:
    with explaining_misfit("step"):
        longer = checkpoint["step"] > trainer.steps
    if longer:
        raise CheckpointError(
            f"The checkpoint was written at step {checkpoint['step']}, but this training ends at step {trainer.steps}."
            " Train longer, or start anew."
        )
    missing = {"net", "lr", "ranks", *parts} - checkpoint.keys()
    if missing:
        raise CheckpointError(
            f"The checkpoint has no {', '.join(sorted(missing))}: it is of another kind of training. Go on with "
            "the options it was written with, or begin anew."
        )


def _take_up_own(trainer: "Trainer", states: list[dict[str, Any]]) -> None:
    own = states[ranks.rank() % len(states)]
    if "task" in own:
        trainer.task.load_state_dict(copy.deepcopy(own["task"]))  # type: ignore[attr-defined]
    if ranks.rank() < len(states):
        trainer.rng = own["rng"]


def load_part(part: Any, state: Any, source: str | os.PathLike[str]) -> None:
    """Load one part of a training, its optimizer say, as `load_state` does a network: nothing is cast."""
    if isinstance(part, nn.Module):
        load_state(part, state, source)
        return
    if not _alike(part.state_dict(), state):
        raise TypeError("a value of another kind")
    if isinstance(part, Optimizer):
        _check_moments(part, state, source)
    part.load_state_dict(state)


def _alike(own: Any, other: Any) -> bool:
    """Whether tensors are where there are tensors, numbers where there are numbers, and so on."""
    if isinstance(own, dict):
        return isinstance(other, dict) and all(_alike(own[key], other[key]) for key in own.keys() & other.keys())
    if isinstance(own, (list, tuple)):
        return isinstance(other, (list, tuple)) and all(map(_alike, own, other))
    kinds: tuple[Any, ...] = (Tensor, (int, float), str)
    return all(isinstance(other, kind) for kind in kinds if isinstance(own, kind))


@contextmanager
def explaining_misfit(what: str) -> Iterator[None]:
    """Turn any error that loading a part of a checkpoint raises into one sentence."""
    try:
        yield
    except QpruneError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint holds something else where its {what} should be. Begin anew with --overwrite, or under a "
            "new --name."
        ) from error


def _check_moments(optimizer: Optimizer, state: Any, source: str | os.PathLike[str]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, moments in state["state"].items():
        if not all(name == "step" or isinstance(value, Tensor | None) for name, value in moments.items()):
            raise TypeError("a moment that is no tensor")
        shaped = {f"parameter {number}, {name}": value for name, value in moments.items()
                  if isinstance(value, Tensor) and value.dim()}  # fmt: skip
        check_dtypes(shaped, dict.fromkeys(shaped, parameters[number]), source)
