"""`LambdaCallback`: a callback from functions."""

from collections.abc import Callable
from typing import Any

from qprune.spelling import closest
from qprune.training.callbacks import HOOKS, Callback


class LambdaCallback(Callback):
    """Calls functions as hooks; see `Callback` for the hooks and what each is given.

    Args:
        hooks: functions by the names of hooks.

    Raises:
        ValueError: for a name that is no hook.

    Example:
        >>> LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for hook, function in hooks.items():
            if hook not in HOOKS:
                near = closest(hook, HOOKS)
                hint = f"Nearest: {near}" if near else f"Hooks are {', '.join(HOOKS)}"
                raise ValueError(f"{hook} is no hook. {hint}.")
            setattr(self, hook, function)
