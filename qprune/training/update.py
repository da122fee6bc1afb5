"""`Update`: from a batch to updated weights, in parts and in low precision if asked."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils._pytree import tree_flatten, tree_unflatten

from qprune.errors import PlanError
from qprune.layers import ReadyWeights, learned_parameters, sites
from qprune.tasks import Task
from qprune.training import ranks

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
Watch = Callable[[Tensor, Any, Any], None]


class Update:
    """One optimizer step: forward and backward, then the update.

    Args:
        net: the network, on its device.
        task: its step.
        optimizer: over the parameters of ``net``.
        device: where it is trained.
        precision: ``"float32"``, or what autocast computes in: ``"bfloat16"`` or ``"float16"``, whose loss is scaled so
            that small gradients survive; a step whose scaled gradients overflow is skipped, and counts as a step.
        accumulate: a batch is computed in so many parts, one after the other, to need less memory; their sizes differ
            by at most one. Losses are averaged over all of its samples.
        part_size: a batch is cut into fewer parts where they would have fewer samples than this.
        clip_norm: gradients are scaled down to this norm, taken over all parameters.
        ready: make the weights ready at once where that is on a GPU, see `qprune.layers.ReadyWeights`; compiled code
            makes its own.

    Raises:
        ValueError: for an unknown precision, or a number below 1 or norm that is not above 0.
        PlanError: as `check_precision`.

    Source: Micikevicius et al., 2018, arXiv:1710.03740, for scaled losses.

    Example:
        >>> update = Update(net, task, sgd, device=torch.device("cpu"), precision="bfloat16", accumulate=2)
        >>> loss = update.backward((images, labels))
        >>> update.apply()
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        optimizer: Optimizer,
        *,
        device: torch.device,
        precision: str = "float32",
        accumulate: int = 1,
        part_size: int = 1,
        clip_norm: float | None = None,
        ready: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; received {precision!r}")
        if accumulate < 1 or (clip_norm is not None and clip_norm <= 0):
            raise ValueError(
                f"accumulate must be at least 1 and clip_norm above 0; received {accumulate} and {clip_norm}"
            )
        check_precision(net, precision)
        self.optimizer, self.device, self.dtype = optimizer, device, PRECISIONS[precision]
        self.accumulate, self.part_size, self.clip_norm = accumulate, part_size, clip_norm
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.scaler = GradScaler(device.type, enabled=precision == "float16")
        self._net, self._ready = net, ready
        self._step: nn.Module = _Step(net, task)
        self.renew()

    @contextmanager
    def replicated(self) -> Iterator[None]:
        """Exchange gradients with the other processes meanwhile; alone, do nothing.

        Not longer: what exchanges them has threads, which must be gone before Python ends.
        """
        plain = self._step
        if ranks.world() > 1:
            self._step = _replicated(plain, self.device)
        try:
            yield
        finally:
            self._step = plain

    def renew(self) -> None:
        """Look anew which layers there are, and exchange gradients of the new shapes, after channels were cut."""
        self._weights = ReadyWeights(self._net if self._ready else nn.Identity())
        if isinstance(self._step, DistributedDataParallel):
            self._step = self._step.module  # whose hooks must be gone before others are set
            self._step = _replicated(self._step, self.device)

    def forward(self, batch: Any) -> tuple[Tensor, Any]:
        """Loss and output of a batch, in the precision of training."""
        with self.autocast(), self._weights.ready():
            result: tuple[Tensor, Any] = self._step(batch)
        return result

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of training."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def inputs(self, batch: Any) -> Any:
        """The network's input in a batch, or in its first part; None for a batch that is no tuple."""
        if not isinstance(batch, (tuple, list)):
            return None
        part, _ = next(split(batch, self.accumulate))
        return part[0]

    def backward(self, batch: Any, share: float = 1.0, watch: Watch | None = None) -> Tensor:
        """Compute the gradients of a batch, clipped if asked.

        Args:
            batch: on the device.
            share: this process's samples, as a multiple of the mean over all processes.
            watch: called with loss, output and target of every part.

        Returns:
            the loss, the mean over the samples; detached.
        """
        self.optimizer.zero_grad()
        total, parts = torch.zeros((), device=self.device), list(split(batch, self.accumulate, self.part_size))
        for index, (part, weight) in enumerate(parts):
            with self._alone() if index < len(parts) - 1 else nullcontext():
                loss, output = self.forward(part)
                weight *= share
                scaled = self.scaler.scale(loss if weight == 1 else loss * weight)
                scaled.backward()
            total = loss.detach() if len(parts) == 1 else total + loss.detach() * (weight / share)
            if watch is not None:
                watch(loss.detach(), output, part[1])
        self.scaler.unscale_(self.optimizer)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        return total

    def _alone(self) -> AbstractContextManager[None]:
        """Gradients are exchanged once, with the last part."""
        return self._step.no_sync() if isinstance(self._step, DistributedDataParallel) else nullcontext()

    def apply(self) -> None:
        """Update the weights, unless scaled gradients overflowed."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        # a skipped step is a step: else the learning-rate schedule would warn that the optimizer never stepped
        self.optimizer._opt_called = True  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The scale of the loss."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the scale of the loss."""
        if state:
            self.scaler.load_state_dict(state)


def check_precision(net: nn.Module, precision: str) -> None:
    """Refuse a loss that is scaled where masks rank channels by its gradient: the scale changes from step to step."""
    for site in sites(net) if precision == "float16" else ():
        if site.mask is not None and site.mask.ranking.gradient_power:
            raise PlanError(
                f'{site.name} ranks channels by gradients (importance = "{site.mask.importance}"), and float16 scales '
                'them by another factor from time to time: use precision = "bfloat16" or "float32", or another '
                "importance."
            )


class _Step(nn.Module):
    """A task's step as a forward pass, which DistributedDataParallel wants."""

    def __init__(self, net: nn.Module, task: Task) -> None:
        super().__init__()
        self.net, self.task = net, task

    def forward(self, batch: Any) -> tuple[Tensor, Any]:
        return self.task.step(self.net, batch)


def _replicated(step: nn.Module, device: torch.device) -> nn.Module:
    options: dict[str, Any] = {"device_ids": [device] if device.type == "cuda" else None}
    # steps that are learned have no gradient before their quantizers are active
    options["find_unused_parameters"] = bool(learned_parameters(step))
    # statistics, masks and ranges are merged between steps, not sent at every forward
    parameters = inspect.signature(DistributedDataParallel).parameters
    renamed = "forward_sync_buffers" in parameters  # in 2.14
    options["forward_sync_buffers" if renamed else "broadcast_buffers"] = False
    return DistributedDataParallel(step, **options)


def split(batch: Any, parts: int, least: int = 1) -> Iterator[tuple[Any, float]]:
    """Cut a batch, any nesting of tensors, into parts of sizes that differ by at most one, each with its share of it.

    There are fewer parts where one would have fewer than ``least`` samples.
    """
    leaves, form = tree_flatten(batch)
    size = max((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()), default=1)
    parts = max(1, min(parts, size // least))
    if parts == 1:
        yield batch, 1.0
        return
    cut = [leaf.tensor_split(parts) if isinstance(leaf, Tensor) and leaf.dim() else [leaf] * parts for leaf in leaves]
    for index, part in enumerate(zip(*cut, strict=True)):
        yield tree_unflatten(part, form), (size // parts + (index < size % parts)) / size
