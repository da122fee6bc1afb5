"""`ReadyWeights`: what sites make of the weights of a network, by one operation for all of them, on a GPU.

Values alone: each layer is a node of autograd's graph of its own, as without. It takes the values that lie ready, if
they are those that it would compute, and computes them itself if anything is not as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import is_
from typing import Any

import torch
from attrs import define
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from qprune.layers.fused import Work, fuses, is_dense, work_of
from qprune.layers.hosts import CompressedWeight

READ = ("keep", "scale", "zero_point", "active", "first", "last")  # of a `Work`, as the operation has them


class ReadyWeights:
    """The weights of a network's layers, made ready for a forward.

    Args:
        net: asked once which layers it has.

    Example:
        >>> weights = ReadyWeights(nn.Sequential(QuantConv2d(2, 3, 1)))
        >>> with weights.ready():
        ...     pass
    """

    def __init__(self, net: nn.Module) -> None:
        self._hosts = [module for module in net.modules() if isinstance(module, CompressedWeight)]
        _end_with_steps()

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within it layers find their weights masked and quantized already; meant for one forward.

        What wrote to a weight, a mask or a quantizer meanwhile is noticed, and the layer computes by itself; only not
        what wrote through ``.data``, which torch does not count. The ranges of weights that were used count when it
        ends; which it does at the step of an optimizer or of a driver, too.
        """
        hosts = (host for host in self._hosts if isinstance(host, CompressedWeight))  # some may be plain by now
        with torch.inference_mode(False), torch.no_grad():  # a gradient may be asked for within
            ready = [each for host in hosts if (each := _ready(host)) is not None]
            _compute(ready)
        for each in ready:
            vars(each.host)["ready_weight"] = each  # not by setattr, which takes two microseconds for a module
        _open.append(ready)
        try:
            yield
        finally:
            _open.remove(ready)
            _end(ready)


@define(eq=False)
class ReadyWeight:
    """The weight of one layer, with all that its values depend on, and where its range is written."""

    host: CompressedWeight
    x: Tensor
    memory: torch.UntypedStorage  # of x: while it is held, nothing else lies there
    work: Work
    state: tuple[int, ...]
    left: list[Tensor | None]  # the values, until they are given away
    low: Tensor | None = None
    high: Tensor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of the layer, or a file, has none."""
        return type(None), ()

    def remaining(self, x: Tensor, work: Work) -> Work:
        """What is left to do of ``work``: all of it, unless it is of the same tensors as here.

        The values are given away once: a layer that is called again computes its own.
        """
        if x is not self.x or not all(map(is_, work, self.work)) or self.state != _state(x, work):
            return work
        try:
            made = self.left.pop()  # at once: threads may call a layer together
        except IndexError:
            return work
        return work._replace(low=None, high=None, made=made)


def _state(x: Tensor, work: Work) -> tuple[int, ...]:
    read = (work.keep, work.scale, work.zero_point, work.active)
    return x.data_ptr(), x._version, *(each._version for each in read if each is not None)


def _ready(host: CompressedWeight) -> ReadyWeight | None:
    x = vars(host)["_parameters"].get("weight")  # what is no parameter is computed by who asks for it
    work = None if x is None or host.recompute else _work(host, x)
    if x is None or work is None:
        return None
    try:
        state = _state(x, work)
    except RuntimeError:  # tensors of inference mode, whose writes nobody counts
        return None
    y = torch.empty_like(x) if work.makes_values else None
    return ReadyWeight(host, x, x.untyped_storage(), work, state, [y])


def _work(host: CompressedWeight, x: Tensor) -> Work | None:
    """What is to be done to a weight, if it is a plain one, with a range for each channel, and that is simple."""
    mask, quant = host.weight_mask, host.weight_quant
    if quant is None or quant.channels is None or not fuses(x, mask, quant) or not _in_rows(host, x):
        return None
    work = work_of(x, mask, quant)
    does = work.scale is not None or work.high is not None
    return work if does and not work.axis and work.score is None and not work.tells_what_passes else None


def _in_rows(host: CompressedWeight, x: Tensor) -> bool:
    """Whether the channels of a weight lie in memory one behind the other."""
    plain = type(x) is nn.Parameter and not x.is_inference() and x.dtype == torch.float32
    return plain and is_dense(x) and host.rows(x) is x


def _compute(ready: Sequence[ReadyWeight]) -> None:
    by_device: dict[torch.device, list[ReadyWeight]] = {}
    for each in ready:
        by_device.setdefault(each.x.device, []).append(each)
    for alike in by_device.values():
        first = alike[0].x
        sizes = [0 if each.work.high is None else len(each.x) for each in alike]
        lows, highs = (flat.split(sizes) for flat in first.new_empty(2, sum(sizes)))
        for each, low, high in zip(alike, lows, highs, strict=True):
            each.low, each.high = low, high
        nothing = first.new_empty(0)
        ys = [nothing if y is None else y for each in alike for y in each.left]
        read: list[Any] = [[getattr(each.work, name) for each in alike] for name in READ]
        torch.ops.qprune.compress_rows.default([each.x for each in alike], ys, lows, highs, *read)


_open: list[list[ReadyWeight]] = []  # those of the blocks that did not end yet


@cache
def _end_with_steps() -> None:
    """Let the step of any optimizer end all blocks: many optimizers write in ways that torch does not count."""
    register_optimizer_step_post_hook(end_ready)


def end_ready(*_: Any) -> None:
    """End all blocks: the ranges of the weights that were used count, and layers compute by themselves.

    Example:
        >>> with ReadyWeights(QuantConv2d(2, 3, 1)).ready():
        ...     end_ready()
    """
    for ready in tuple(_open):
        _end(ready)


def _end(ready: list[ReadyWeight]) -> None:
    """Let the ranges of what was taken count, and nothing be taken any more; once."""
    ended = ready[:]
    ready.clear()
    taken = [each for each in ended if not each.left and each.work.high is not None]
    for each in ended:
        vars(each.host).pop("ready_weight", None)
        each.left.clear()  # a copy of the layer may know it still
    _widen_ranges(taken)


@torch.no_grad()
def _widen_ranges(ready: Sequence[ReadyWeight]) -> None:
    if ready:
        torch._foreach_clamp_max_([each.work.low for each in ready], [each.low for each in ready])  # type: ignore[misc]
        torch._foreach_clamp_min_([each.work.high for each in ready], [each.high for each in ready])  # type: ignore[misc]
