"""The protocol of a task: any object with these five names is one, without inheriting from a class."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Task(Protocol):
    """A loss, a step and the metrics of one kind of problem.

    A task may have more: ``state_dict`` and ``load_state_dict``, if its steps depend on earlier ones;
    ``panels(net, batch, view)``, pictures of what the network makes of a batch, side by side what ``columns`` names;
    ``confusions(output, target)``, counts of which class was taken for which; and ``check_target(target)`` and
    ``check_output(output_shape, images_shape)``, which raise a ValueError with the rule that labels of a batch, on the
    host, or the output of the network do not keep.

    To learn from a teacher it has ``distillation(output, batch, teacher, temperature)``: how far the output of a
    training step is from that of the teacher, a scalar. Where images are compared and not logits, ``generators`` are
    the names of the modules that the teacher must have for it.

    Attributes:
        monitor: the metric by which the best epoch is chosen, a name in `metrics` or ``"loss"``.
        mode: ``"max"`` if more of it is better, ``"min"`` if less.

    Example:
        >>> class Regression:
        ...     monitor, mode = "error", "min"
        ...     def loss(self, output, target):
        ...         return nn.functional.mse_loss(output, target)
        ...     def step(self, net, batch):
        ...         output = net(batch[0])
        ...         return self.loss(output, batch[1]), output
        ...     def metrics(self):
        ...         return torchmetrics.MetricCollection({"error": torchmetrics.MeanAbsoluteError()})
        >>> isinstance(Regression(), Task)
        True
    """

    @property
    def monitor(self) -> str:
        """The metric by which the best epoch is chosen."""

    @property
    def mode(self) -> str:
        """``"max"`` or ``"min"``."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss that is reported: the mean over a batch, a scalar, without what only helps training."""

    def step(self, net: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """One forward pass over ``(input, target)``: the loss to minimize (where ``net.training``) and the output."""

    def metrics(self) -> Any:
        """Fresh metrics as a torchmetrics.MetricCollection, updated with ``(output, target)``; keys name results.

        A metric that computes a dict names its results itself, and gives an empty one where it has none.
        """
