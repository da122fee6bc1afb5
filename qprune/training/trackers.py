"""The trackers that ``train.log`` may name, beside TensorBoard."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from qprune.errors import SpecError
from qprune.spec import Spec
from qprune.training.mlflow_tracker import MLflowTracker
from qprune.training.tracker import Tracker
from qprune.training.wandb_tracker import WandbTracker

TENSORBOARD = "tensorboard"
TRACKERS: dict[str, type[Tracker]] = {"mlflow": MLflowTracker, "wandb": WandbTracker}


def check_trackers(specs: Iterable[Spec]) -> None:
    """Refuse specs that name a tracker whose package is not installed.

    Raises:
        SpecError: with the command that installs it.

    Example:
        >>> check_trackers([read_spec("digits/baseline")])
    """
    for spec in specs:
        for word in spec.train.log:
            kind = TRACKERS.get(word)
            if kind is not None and find_spec(kind.package) is None:
                raise SpecError(
                    f'train.log names "{word}", and {kind.title} is not installed: pip install "qprune[{word}]", or '
                    f"leave it out (train.log in {spec.name})."
                )


def make_trackers(spec: Spec) -> list[Tracker]:
    """The trackers that a spec names, in its order."""
    parameters = dict(_flat(spec.to_dict()))
    return [TRACKERS[word](spec.name, parameters) for word in spec.train.log if word in TRACKERS]


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by their keys, such as ``prune.0.sparsity``; a network's layers, of which there may be many, as one."""
    for name, value in table.items():
        key = f"{above}{name}"
        if isinstance(value, list) and any(isinstance(item, dict) for item in value) and key != "model.layers":
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        else:
            yield key, value
