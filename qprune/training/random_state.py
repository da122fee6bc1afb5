"""The state of the random generators that training draws from, as tensors and plain numbers."""

import logging
import random
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)

Device = torch.device | str | None


def seed_generators(seed: int) -> None:
    """Seed the global generators of torch, Python and NumPy.

    Args:
        seed: a whole number; NumPy takes it modulo 2**32.

    Example:
        >>> seed_generators(0)
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def get_rng(device: Device = None) -> dict[str, Any]:
    """The state of the global generators of torch, Python and NumPy, and of one GPU's if GPUs are in use.

    Args:
        device: where training draws its numbers; the current GPU if None. A loop of your own that draws on several
            GPUs keeps those of the others by itself.

    Returns:
        tensors and plain numbers, for `qprune.training.save_checkpoint`.

    Example:
        >>> state = get_rng()
    """
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {
        "cpu": torch.get_rng_state(),
        "python": {"version": version, "numbers": torch.tensor(numbers), "gauss": gauss},
        "numpy": _numpy_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized() and _is_gpu(device):
        state["cuda"] = torch.cuda.get_rng_state(_gpu(device))
    return state


def set_rng(state: dict[str, Any], device: Device = None) -> None:
    """Go on from what `get_rng` gave, on this machine's GPU wherever it was another one's.

    States of earlier versions of qprune hold torch's generators alone; then Python's and NumPy's stay as they are.

    Args:
        state: what `get_rng` gave.
        device: where training draws its numbers; the current GPU if None.

    Example:
        >>> set_rng(state)
    """
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available() and _is_gpu(device):
        _set_gpu(state["cuda"], _gpu(device))
    if "python" not in state:
        log.info("The checkpoint holds no state of Python's and NumPy's random numbers; they are as seeded.")
        return
    python = state["python"]
    random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))
    numpy = state["numpy"]
    if numpy:
        key = numpy["key"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"]))


def _numpy_state() -> dict[str, Any]:
    state = np.random.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":  # somebody gave NumPy another one, whose state cannot be set again
        log.warning("NumPy's global generator is a %s, whose state is not kept.", state["bit_generator"])
        return {}
    key = torch.from_numpy(state["state"]["key"].astype(np.int64))
    return {"key": key, "pos": state["state"]["pos"], "has_gauss": state["has_gauss"], "gauss": state["gauss"]}


def _is_gpu(device: Device) -> bool:
    return device is None or torch.device(device).type == "cuda"


def _gpu(device: Device) -> int:
    index = None if device is None else torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def _set_gpu(saved: Any, index: int) -> None:
    if isinstance(saved, torch.Tensor):
        torch.cuda.set_rng_state(saved, index)
    elif index < len(saved):  # files of earlier versions have one state for each GPU of their machine
        torch.cuda.set_rng_state(saved[index], index)
    else:
        log.warning(
            "The checkpoint holds the random numbers of %d GPUs and none for number %d: that one goes on with its own.",
            *(len(saved), index),
        )
