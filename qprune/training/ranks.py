"""Communication between the processes of one training. With a single process nothing is sent.

A process is called a rank, as in torch.distributed. Nothing here is called inside a forward pass. All but the first
few functions wait for all ranks, which must call them at the same points.
"""

import gc
import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qprune.errors import QpruneError, TrainingError
from qprune.host import on_host
from qprune.training.roll_call import LostError, RollCall

_MEETING = 300.0  # seconds in which all must have been started, at least; as torch has it
_EVER = 10**8  # seconds; torch counts nanoseconds in 64 bits
_groups = itertools.count()  # a store outlives the group, so each group's keys need a name of their own


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if several() else 0


def world() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if several() else 1


def is_writer() -> bool:
    """Whether this is the one process that writes files and shows progress, also after training together is over."""
    return rank() == 0 and (several() or not _started_together() or os.environ.get("RANK") == "0")


def several() -> bool:
    """Whether torch.distributed is set up."""
    return dist.is_available() and dist.is_initialized()


def _started_together() -> bool:
    size = os.environ.get("WORLD_SIZE") or "1"
    if not size.isdecimal():
        raise QpruneError(f'WORLD_SIZE must be a whole number; received "{size}". Unset it, or start with torchrun.')
    return int(size) > 1


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Train together with the processes that ``torchrun`` started beside this one; alone, do nothing.

    If one of them fails, all end with its error; if one does not answer in time (see `rank_timeout`), all others end
    and name it.

    Args:
        device: where this process trains; GPUs exchange tensors over NCCL, all else goes over gloo.

    Raises:
        TrainingError: with the error of the process that failed, or the numbers of those that do not answer.

    Example:
        >>> with joined(torch.device("cpu")):
        ...     world()
        1
    """
    if several() or not _started_together():
        yield
        return
    seconds = rank_timeout()
    call = _met(device, seconds)
    try:
        yield
    except Exception as error:
        # torchrun sends SIGTERM as soon as one process is gone; the others shall still say why
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        explained = call.explained(error)
        if explained is error:
            raise
        raise explained from error
    finally:
        _part()


def _part() -> None:
    """Leave the process group; the other processes notice at their next exchange."""
    if several():
        gc.collect()  # whatever still holds the group keeps its threads, which must be gone before Python ends
        dist.destroy_process_group()


def _met(device: torch.device, seconds: float) -> RollCall:
    """Set torch.distributed up with the processes that were started together."""
    meeting = timedelta(seconds=max(seconds, _MEETING))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, number, size = next(dist.rendezvous("env://", timeout=meeting))
        store = dist.PrefixStore(f"qprune-{next(_groups)}", store)
        store.set(f"here/{number}", "")
        store.wait([f"here/{other}" for other in range(size)], meeting)  # some begin later than others would wait
        limit = timedelta(seconds=seconds)
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=limit)
        wait_for_all()  # connects them, so that each notices the end of another
    except (RuntimeError, ValueError) as error:
        _part()
        told = {name: os.environ.get(name, "not set") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
        raise TrainingError(
            f"The processes that train together did not all meet within {meeting.total_seconds():g} s; this one was "
            f"told {', '.join(f'{name} {value}' for name, value in told.items())}. Start them with torchrun; to train "
            "alone, unset WORLD_SIZE."
        ) from error
    return RollCall(store, number, size, seconds)


def rank_timeout() -> float:
    """Seconds that one process waits for the others: the variable ``QPRUNE_RANK_TIMEOUT``, else 1800."""
    text = os.environ.get("QPRUNE_RANK_TIMEOUT") or "1800"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < _EVER:
        raise QpruneError(
            f"QPRUNE_RANK_TIMEOUT must be a number of seconds above 0 and below {_EVER}; received {text!r}."
        )
    return seconds


@contextmanager
def _exchanging() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostError("The other processes were lost.") from error


def device_of_rank(name: str | None) -> str | None:
    """The device of this process: of several on one machine each has the GPU of its own number."""
    local = os.environ.get("LOCAL_RANK")
    gpu = name == "cuda" or (name is None and torch.cuda.is_available())
    return f"cuda:{local}" if local is not None and gpu else name


def agree(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether any process has it."""
    if world() == 1:
        return flags
    told = torch.tensor(flags, dtype=torch.int32)
    with _exchanging():
        dist.all_reduce(told, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in told)


def gathered(value: Any) -> list[Any]:
    """The value of every process, in the order of their numbers."""
    values = [value]
    if world() > 1:
        values *= world()
        with _exchanging():
            dist.all_gather_object(values, value)
    return values


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums over all processes, in float64; many tensors travel as one."""
    return _reduced(tensors, torch.float64, "SUM")


def lowest(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The smallest values of all processes, place by place, in float32."""
    return _reduced(tensors, torch.float32, "MIN")


def _reduced(tensors: Sequence[Tensor], dtype: torch.dtype, operation: str) -> list[Tensor]:
    flat = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])
    if world() > 1:
        with _exchanging():
            dist.all_reduce(flat, getattr(dist.ReduceOp, operation))
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


@torch.no_grad()
def average_statistics(net: nn.Module) -> None:
    """Give every process the mean of their running statistics, so that all hold one network."""
    if world() == 1:
        return
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    buffers = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
    if buffers:
        (total,) = summed([torch.cat(buffers)])
        torch._foreach_copy_(buffers, total.div_(world()).split([len(buffer) for buffer in buffers]))


def check_alike(tensors: Callable[[], Sequence[Tensor]], what: str) -> None:
    """Make sure that every process holds the same bits."""
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
    """A checksum of the bits of tensors."""
    sha = hashlib.sha256()
    for tensor in on_host(tensors):
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def wait_for_all() -> None:
    """Wait until every process is here."""
    gathered(None)
