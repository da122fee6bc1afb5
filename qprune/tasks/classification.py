"""Image classification: cross-entropy, accuracy, top-5."""

from typing import Any

import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor, nn

from qprune.tasks.checks import check_labels, is_classes
from qprune.tasks.counting import count_pairs
from qprune.tasks.distilled import softened_divergence


def _check_smoothing(_: object, __: object, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"label_smoothing must be in [0, 1); received {value!r}")


@frozen
class Classification:
    """One class per image.

    Args:
        classes: number of classes; outputs are (N, classes), targets int64 (N,).
        label_smoothing: share of the target spread over all classes (Szegedy et al., 2016, arXiv:1512.00567), in
            training only: reported losses are plain cross-entropy.

    Raises:
        ValueError: for fewer than 2 classes or a share outside [0, 1).

    Example:
        >>> Classification(classes=10).loss(torch.zeros(3, 10), torch.tensor([1, 4, 7]))
        tensor(2.3026)
    """

    classes: int = field(validator=is_classes)
    label_smoothing: float = field(default=0.0, validator=_check_smoothing)
    monitor: str = field(default="accuracy", init=False)
    mode: str = field(default="max", init=False)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy, a scalar, computed in float32."""
        return self._cross_entropy(output, target, 0.0)

    def step(self, net: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Forward ``(images, target)``; the loss is smoothed where ``net.training``.

        Raises:
            ValueError: if the network's output does not have one value per class.
        """
        images, target = batch
        output = net(images)
        return self._cross_entropy(output, target, self.label_smoothing if net.training else 0.0), output

    def distillation(self, output: Tensor, batch: Any, teacher: nn.Module, temperature: float) -> Tensor:
        """How far the classes are from those of a teacher: the mean over the images of `softened_divergence`."""
        return softened_divergence(output, teacher(batch[0]), temperature).mean()

    def check_target(self, target: Tensor) -> None:
        """Refuse labels that are none of the classes.

        Raises:
            ValueError: unless ``target`` is int64 (N,) of 0 to ``classes - 1``.
        """
        check_labels(target, ("N",), self.classes)

    def check_output(self, output: tuple[int, ...], images: tuple[int, ...]) -> None:
        """Refuse the shape of an output that has not one value per class.

        Args:
            output: the output's shape.
            images: ``(N, H, W)``.

        Raises:
            ValueError: unless it is ``(N, classes)``.
        """
        if len(output) != 2 or output[1] != self.classes:
            raise ValueError(f"output must have shape (N, {self.classes}), one value per class; received {output}")

    def confusions(self, output: Tensor, target: Tensor) -> Tensor:
        """How often each class, by rows, was told to be each class, by columns: int64 (classes, classes)."""
        return count_pairs(target.long(), output.argmax(1), self.classes)

    def metrics(self) -> Any:
        """``accuracy``, and ``top5`` where there are more than 5 classes: shares of the images, in [0, 1]."""
        from torchmetrics import MetricCollection  # takes seconds to import
        from torchmetrics.classification import MulticlassAccuracy

        # validate_args reads targets back to the host on every update
        options: dict[str, Any] = {"num_classes": self.classes, "average": "micro", "validate_args": False}
        accuracies: dict[str, Any] = {"accuracy": MulticlassAccuracy(**options)}
        if self.classes > 5:
            accuracies["top5"] = MulticlassAccuracy(top_k=5, **options)
        return MetricCollection(accuracies)

    def _cross_entropy(self, output: Tensor, target: Tensor, smoothing: float) -> Tensor:
        self.check_output(tuple(output.shape), ())
        return F.cross_entropy(output.float(), target, label_smoothing=smoothing)
