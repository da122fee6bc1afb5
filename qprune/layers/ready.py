"""`ReadyWeights`: what sites make of the weights of a network, by one operation for all of them, on a GPU.

Values alone: each layer is a node of autograd's graph of its own, as without. It takes the values that lie ready, if
they are those that it would compute, and computes them itself if anything is not as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import torch
from attrs import define
from torch import Tensor, nn

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

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within it layers find their weights masked and quantized already; meant for one forward.

        What wrote to a weight, a mask or a quantizer meanwhile is noticed, and the layer computes by itself; only not
        what wrote through ``.data``, which torch does not count. The ranges of weights that were used count when it
        ends.
        """
        hosts = (host for host in self._hosts if isinstance(host, CompressedWeight))  # some may be plain by now
        ready = [each for host in hosts if (each := _ready(host)) is not None]
        _compute(ready)
        for each in ready:
            vars(each.host)["ready_weight"] = each  # not by setattr, which takes two microseconds for a module
        try:
            yield
        finally:
            for each in ready:
                vars(each.host).pop("ready_weight", None)
            _widen_ranges([each for each in ready if each.taken and each.work.high is not None])


@define(eq=False)
class ReadyWeight:
    """The weight of one layer, with all that its values depend on, and where its range is written."""

    host: CompressedWeight
    x: Tensor
    work: Work
    state: tuple[int, ...]
    y: Tensor | None
    low: Tensor | None = None
    high: Tensor | None = None
    taken: bool = False

    def remaining(self, x: Tensor, work: Work) -> Work:
        """What is left to do of ``work``: all of it, unless it is of the same tensors as here.

        The values are given away once: a layer that is called again computes its own.
        """
        if self.taken or x is not self.x or not all(map(is_, work, self.work)) or self.state != _state(x, work):
            return work
        made, self.taken, self.y = self.y, True, None
        return work._replace(low=None, high=None, made=made)


def _state(x: Tensor, work: Work) -> tuple[int, ...]:
    read = (work.keep, work.scale, work.zero_point, work.active)
    return x.data_ptr(), x._version, *(each._version for each in read if each is not None)


def _ready(host: CompressedWeight) -> ReadyWeight | None:
    x = vars(host)["_parameters"].get("weight")  # what is no parameter is computed by who asks for it
    work = None if x is None or host.recompute else _work(host, x)
    if work is None:
        return None
    with torch.no_grad():
        return ReadyWeight(host, x, work, _state(x, work), torch.empty_like(x) if work.makes_values else None)


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


@torch.no_grad()
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
        ys = [nothing if each.y is None else each.y for each in alike]
        read: list[Any] = [[getattr(each.work, name) for each in alike] for name in READ]
        torch.ops.qprune.compress_rows.default([each.x for each in alike], ys, lows, highs, *read)


@torch.no_grad()
def _widen_ranges(ready: Sequence[ReadyWeight]) -> None:
    if ready:
        torch._foreach_clamp_max_([each.work.low for each in ready], [each.low for each in ready])  # type: ignore[misc]
        torch._foreach_clamp_min_([each.work.high for each in ready], [each.high for each in ready])  # type: ignore[misc]
