"""`Distilled`: a task whose loss has a second term, how far the outputs are from those of a teacher."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from qprune.errors import PlanError
from qprune.tasks.alignment import distance, first_outputs
from qprune.tasks.task import Task


class Taught(NamedTuple):
    """The output of a training step with a teacher.

    Attributes:
        output: that of the task.
        parts: ``{"distillation": ...}``, a detached scalar, unweighted.

    Example:
        >>> Taught(torch.zeros(3, 10), {"distillation": torch.tensor(0.5)}).output.shape
        torch.Size([3, 10])
    """

    output: Any
    parts: dict[str, Tensor]


class Distilled:
    """A task that is learned from a teacher, too; what it does beyond its loss in training is the task's own.

    In training the loss is ``(1 - weight) * loss + weight * distillation``. Each step, and each part of a batch that is
    computed in parts, runs the teacher once on the same images, in the same precision. In evaluation there is no
    teacher.

    Args:
        task: with a method ``distillation(output, batch, teacher, temperature)``, a scalar.
        teacher: a network in eval mode, on the device, whose parameters need no gradient. It is no part of the network
            that is trained, nor of its checkpoints.
        weight: share of the teacher in the loss, from 0 to 1.
        temperature: see `softened_divergence`.
        layers: module paths of both networks, whose outputs are compared too, as they are when the layer first runs in
            a step: each adds ``1 - alignment`` to the distillation, see `qprune.tasks.alignment.alignment`.

    Raises:
        PlanError: in a step, if the outputs of a layer cannot be compared.

    Source: Hinton et al., 2015, arXiv:1503.02531; for layers Jin et al., 2021, arXiv:2103.03467.

    Example:
        >>> task = Distilled(Classification(classes=10), nn.Linear(5, 10).eval(), weight=0.9, temperature=4.0)
        >>> loss, output = task.step(nn.Linear(5, 10), (torch.zeros(3, 5), torch.tensor([1, 4, 7])))
        >>> output.parts.keys()
        dict_keys(['distillation'])
    """

    def __init__(
        self, task: Task, teacher: nn.Module, weight: float, temperature: float, layers: Sequence[str] = ()
    ) -> None:
        self.task, self.teacher, self.weight, self.temperature = task, teacher, weight, temperature
        self.layers = tuple(layers)

    @property
    def monitor(self) -> str:
        """As the task's."""
        return self.task.monitor

    @property
    def mode(self) -> str:
        """As the task's."""
        return self.task.mode

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """As the task's: the loss that is reported of an evaluation."""
        return self.task.loss(output, target)

    def step(self, net: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """The task's step; where ``net.training``, with the teacher in the loss, and `Taught` as the output."""
        if not net.training:
            return self.task.step(net, batch)
        with first_outputs(net, self.layers) as ours:
            loss, output = self.task.step(net, batch)
        with first_outputs(self.teacher, self.layers) as theirs:
            taught: Tensor = self.task.distillation(output, batch, self.teacher, self.temperature)  # type: ignore[attr-defined]
        if self.layers:
            taught = taught + distance(ours, theirs)
        return (1 - self.weight) * loss + self.weight * taught, Taught(output, {"distillation": taught.detach()})

    def metrics(self) -> Any:
        """The task's, and in training ``distillation``, the mean of the teacher's term, unweighted."""
        from qprune.tasks.taught_metrics import TaughtMetrics  # takes seconds to import

        return TaughtMetrics(self.task.metrics())

    def __getattr__(self, name: str) -> Any:
        # what a task may have and need not: its state, its checks, its pictures
        if name == "task":  # a copy that is just being made has none yet
            raise AttributeError(name)
        return getattr(self.task, name)


def softened_divergence(output: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """How far softened classes are from the teacher's, ``T^2 * KL(softmax(taught / T) || softmax(output / T))``.

    The square keeps the size of gradients the same for every temperature.

    Args:
        output: logits (N, classes, ...).
        taught: those of the teacher, in the same shape.
        temperature: T, greater than 0; the higher, the more the small ones count.

    Returns:
        (N, ...), computed in float32.

    Raises:
        PlanError: if the shapes differ.

    Source: Hinton et al., 2015, arXiv:1503.02531.

    Example:
        >>> softened_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]]), temperature=1.0)
        tensor([0.6931])
    """
    check_same_shape(output, taught)
    ours = F.log_softmax(output.float() / temperature, 1)
    theirs = F.softmax(taught.float() / temperature, 1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="none").sum(1)


def check_same_shape(output: Tensor, taught: Any) -> None:
    """Refuse what a teacher gives if it is no tensor in the shape of the network's output."""
    if not isinstance(taught, Tensor) or taught.shape != output.shape:
        received = tuple(taught.shape) if isinstance(taught, Tensor) else type(taught).__name__
        raise PlanError(
            f"The teacher must give one tensor in the shape of the network's output, {tuple(output.shape)}; received "
            f"{received}."
        )
