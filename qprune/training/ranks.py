"""What the processes of one training tell each other. With one process they have nothing to tell, and nothing is sent.

A process is called a rank, as in torch.distributed. Nothing here is called inside a forward pass. All but the first
few functions wait for all ranks, which must call them at the same points.
"""

import gc
import hashlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qprune.errors import QpruneError, TrainingError

_FAILURE = "failure"
_PATIENCE = 5.0  # seconds in which a rank that lost the others looks for the reason
_groups = itertools.count()  # a store outlives the group, so each group's keys need a name of their own


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if several() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if several() else 1


def is_writer() -> bool:
    """Whether this is the one process that writes files and shows progress, also after training together is over."""
    return rank() == 0 and (several() or not _started_together() or os.environ.get("RANK") == "0")


def several() -> bool:
    """Whether torch.distributed is set up."""
    return dist.is_available() and dist.is_initialized()


def _started_together() -> bool:
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Train together with the processes that ``torchrun`` started beside this one; alone, do nothing.

    If one of them fails, all end with its error.

    Args:
        device: where this process trains; GPUs exchange tensors over NCCL, all else goes over gloo.

    Raises:
        TrainingError: with the error of the process that failed.

    Example:
        >>> with joined(torch.device("cpu")):
        ...     world()
        1
    """
    if several() or not _started_together():
        yield
        return
    store, number, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"qprune-{next(_groups)}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size)
    try:
        yield
    except Exception as error:
        # torchrun sends SIGTERM as soon as one process is gone; the others shall still say why
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        first = _first_failure(store, 0.0 if isinstance(error, QpruneError) else _PATIENCE)
        if first is None:
            kind = "" if isinstance(error, QpruneError) else f"{type(error).__name__}: "
            store.set(_FAILURE, f"{number} {kind}{error}")
            raise
        where, _, text = first.partition(" ")
        raise TrainingError(f"Process {where} failed, which ends all of them: {text}") from error
    finally:
        gc.collect()  # whatever still holds the group keeps its threads, which must be gone before Python ends
        dist.destroy_process_group()


def _first_failure(store: dist.Store, patience: float) -> str | None:
    """What another process said; one that merely lost its peers waits for it a moment."""
    end = time.monotonic() + patience
    while True:
        try:
            if store.check([_FAILURE]):
                return store.get(_FAILURE).decode()
        except RuntimeError:
            return None  # the process that kept the store is gone as well
        if time.monotonic() >= end:
            return None
        time.sleep(0.05)


def device_of_rank(name: str | None) -> str | None:
    """The device of this process: of several on one machine each has the GPU of its own number.

    Example:
        >>> device_of_rank("cpu")
        'cpu'
    """
    local = os.environ.get("LOCAL_RANK")
    gpu = name == "cuda" or (name is None and torch.cuda.is_available())
    return f"cuda:{local}" if local is not None and gpu else name


def agree(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether any process has it.

    Example:
        >>> agree(True, False)
        (True, False)
    """
    if world() == 1:
        return flags
    told = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in told)


def gathered(value: Any) -> list[Any]:
    """The value of every process, in the order of their numbers.

    Args:
        value: tensors and plain data.

    Example:
        >>> gathered({"images": 3})
        [{'images': 3}]
    """
    values = [value]
    if world() > 1:
        values *= world()
        dist.all_gather_object(values, value)
    return values


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums over all processes, in float64; many tensors travel as one.

    Example:
        >>> summed([torch.tensor([1.0, 2.0])])
        [tensor([1., 2.], dtype=torch.float64)]
    """
    return _reduced(tensors, torch.float64, "SUM")


def lowest(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The smallest values of all processes, place by place, in float32.

    Example:
        >>> lowest([torch.tensor([1.0, 2.0])])
        [tensor([1., 2.])]
    """
    return _reduced(tensors, torch.float32, "MIN")


def _reduced(tensors: Sequence[Tensor], dtype: torch.dtype, operation: str) -> list[Tensor]:
    flat = torch.cat([tensor.detach().to(dtype).reshape(-1) for tensor in tensors])
    if world() > 1:
        dist.all_reduce(flat, getattr(dist.ReduceOp, operation))
    sizes = [tensor.numel() for tensor in tensors]
    return [part.view(tensor.shape) for part, tensor in zip(flat.split(sizes), tensors, strict=True)]


@torch.no_grad()
def average_statistics(net: nn.Module) -> None:
    """Give every process the mean of their running statistics, so that all hold one network.

    Example:
        >>> average_statistics(nn.BatchNorm2d(3))
    """
    if world() == 1:
        return
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    buffers = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
    if buffers:
        for buffer, total in zip(buffers, summed(buffers), strict=True):
            buffer.copy_(total / world())


def check_alike(tensors: Callable[[], Sequence[Tensor]], what: str) -> None:
    """Make sure that every process holds the same bits.

    Args:
        tensors: gives them; not asked when there is one process.
        what: their name, for the error.

    Raises:
        TrainingError: if a process differs; it is named.

    Example:
        >>> check_alike(lambda: [torch.zeros(3)], "The masks")
    """
    if world() == 1:
        return
    digests = gathered(digest(tensors()))
    different = [str(number) for number, value in enumerate(digests) if value != digests[0]]
    if different:
        raise TrainingError(
            f"{what} of process {', '.join(different)} are not those of process 0. Every process must train the same "
            "network from the same spec on the same kind of device."
        )


def digest(tensors: Sequence[Tensor]) -> str:
    """A checksum of the bits of tensors.

    Example:
        >>> digest([torch.zeros(3)]) == digest([torch.zeros(3)])
        True
    """
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def wait_for_all() -> None:
    """Wait until every process is here.

    Example:
        >>> wait_for_all()
    """
    gathered(None)
