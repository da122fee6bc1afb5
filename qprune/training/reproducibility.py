"""The same bits from every run: seeds, the states of the random generators, and operations that are deterministic."""

import logging
import os
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)

Device = torch.device | str | None
_WITHOUT = re.compile(r"(\S+) does not have a deterministic implementation")


def seed_generators(seed: int) -> None:
    """Seed the global generators of torch, Python and NumPy."""
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
    """Restore the generators from what `get_rng` gave; the state of a GPU goes to this machine's GPU.

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


@contextmanager
def determined(wanted: bool = True) -> Iterator[list[str]]:
    """Make torch use deterministic operations inside the ``with`` block; they may be slower.

    On a CPU all operations of the networks here are. On a GPU some are not, such as the gradient of bilinear resizing
    and of reflection padding: each is named once in the log, and training goes on.

    Args:
        wanted: false changes nothing.

    Yields:
        the names of the operations met so far that have no deterministic form.

    Example:
        >>> with determined() as others:
        ...     loss.backward()
        >>> others
        []
    """
    found: list[str] = []
    if not wanted:
        yield found
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    benchmark = torch.backends.cudnn.benchmark
    with warnings.catch_warnings():
        # not "once", which would keep an operation from being named in a second training of the same process
        warnings.filterwarnings("always", message=_WITHOUT.pattern)
        warnings.showwarning = _told(found, warnings.showwarning)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        try:
            yield found
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.backends.cudnn.benchmark = benchmark


def _told(found: list[str], others: Any) -> Any:
    def show(message: Warning | str, *details: Any, **options: Any) -> None:
        match = _WITHOUT.search(str(message))
        if match is None:
            others(message, *details, **options)
        elif match[1] not in found:
            found.append(match[1])
            log.warning("%s has no deterministic form: results may differ from run to run.", match[1])

    return show
