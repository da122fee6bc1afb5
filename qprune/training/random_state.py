"""The state of torch's random generators, as tensors."""

from typing import Any

import torch


def get_rng() -> dict[str, Any]:
    """The state of the CPU's generator, and of the GPUs' where they are in use.

    Example:
        >>> state = get_rng()
    """
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng(state: dict[str, Any]) -> None:
    """Go on from what `get_rng` gave.

    Example:
        >>> set_rng(state)
    """
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
