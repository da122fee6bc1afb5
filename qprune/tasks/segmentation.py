"""Semantic segmentation: bootstrapped cross-entropy, mean intersection over union."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor, nn

from qprune.host import constant
from qprune.tasks.checks import can_weigh, check_labels, is_classes, is_share
from qprune.tasks.counting import count_pairs
from qprune.tasks.distilled import softened_divergence
from qprune.tasks.pictures import View, overlay, side_by_side, to_pixels


def _check_ignore(task: Any, _: object, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or 0 <= value < task.classes:
        raise ValueError(f"ignore must be a whole number outside 0..{task.classes - 1}; received {value!r}")


def _as_weights(value: Any) -> Any:
    return tuple(value) if isinstance(value, Iterable) else value  # what is neither is refused in words


def _check_weights(task: Any, _: object, value: Any) -> None:
    if not isinstance(value, tuple) or (
        value and (len(value) != task.classes or not all(map(can_weigh, value)) or not any(value))
    ):
        raise ValueError(
            f"class_weights must be {task.classes} numbers of at least 0, one per class and not all 0, or none; "
            f"received {value!r}"
        )


def _check_names(task: Any, _: object, value: tuple[str, ...]) -> None:
    if value and (len(value) != task.classes or len(set(value)) != len(value)):
        raise ValueError(f"names must be {task.classes} different ones, one per class, or none; received {value!r}")


@frozen
class Segmentation:
    """One class per pixel.

    Args:
        classes: number of classes; images are (N, 3, H, W), outputs (N, classes, H, W), targets int64 (N, H, W).
        hardest: share of the pixels of each image that training learns from, those of highest loss; counted from all
            H * W, and at most those that have a class. 1 is plain cross-entropy. In training only: reported losses are
            plain cross-entropy.
        class_weights: how much pixels of each class count in training, such as more for rare ones: the loss is the
            weighted mean. None are 1 each. Reported losses and metrics are not weighted.
        ignore: the label of pixels without a class.
        names: of the classes; then each has its own entry in the metrics.

    Raises:
        ValueError: for fewer than 2 classes, a share outside (0, 1], weights that are not one per class, a class as
            ``ignore``, or names that are too few, too many or not different.

    Source: bootstrapped cross-entropy, Pohlen et al., 2017, arXiv:1611.08323; the published experiments on
    Cityscapes learn from 32768 of 131072 pixels, ``hardest=0.25``.

    Example:
        >>> Segmentation(classes=5).loss(torch.zeros(2, 5, 3, 4), torch.zeros(2, 3, 4, dtype=torch.int64))
        tensor(1.6094)
    """

    columns: ClassVar[tuple[str, ...]] = ("the image", "the truth", "what the network tells")

    classes: int = field(validator=is_classes)
    hardest: float = field(default=1.0, validator=is_share)
    class_weights: tuple[float, ...] = field(default=(), converter=_as_weights, validator=_check_weights)
    ignore: int = field(default=255, validator=_check_ignore)
    names: tuple[str, ...] = field(default=(), converter=tuple, validator=_check_names)
    monitor: str = field(default="miou", init=False)
    mode: str = field(default="max", init=False)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the pixels that have a class, a scalar, computed in float32; 0 where none has."""
        return self._pixel_losses(output, target).sum() / target.ne(self.ignore).sum().clamp(min=1)

    def step(self, net: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Forward ``(images, target)``; the loss is that of the hardest pixels where ``net.training``.

        Raises:
            ValueError: if the network's output does not have one value per class and pixel.
        """
        images, target = batch
        output = net(images)
        return (self._weighted(output, target) if net.training else self.loss(output, target)), output

    def distillation(self, output: Tensor, batch: Any, teacher: nn.Module, temperature: float) -> Tensor:
        """How far the classes are from those of a teacher: the mean of `softened_divergence` over the labelled pixels.

        All of them count, whatever `hardest` is; 0 where none is labelled.
        """
        images, target = batch
        labelled = target.ne(self.ignore)
        divergence = softened_divergence(output, teacher(images), temperature)
        return divergence.where(labelled, 0).sum() / labelled.sum().clamp(min=1)

    def check_target(self, target: Tensor) -> None:
        """Refuse labels that are neither a class nor `ignore`.

        Raises:
            ValueError: unless ``target`` is int64 (N, H, W) of those.
        """
        check_labels(target, ("N", "H", "W"), self.classes, self.ignore)

    def check_output(self, output: tuple[int, ...], images: tuple[int, ...]) -> None:
        """Refuse the shape of an output that has not one value per class and pixel.

        Args:
            output: the output's shape.
            images: ``(N, H, W)``.

        Raises:
            ValueError: unless it is ``(N, classes, H, W)``.
        """
        if output != (images[0], self.classes, *images[1:]):
            raise ValueError(
                f"output must have shape (N, {self.classes}, H, W), one value per class and pixel, for images of "
                f"{images[1]}x{images[2]}; received {output}"
            )

    def confusions(self, output: Tensor, target: Tensor) -> Tensor:
        """How many pixels of each class, by rows, were told to be of each class, by columns: int64."""
        return count_pairs(target.long(), output.argmax(1), self.classes)

    def metrics(self) -> Any:
        """``miou``, ``accuracy`` and, with names, ``iou_<class>``, in [0, 1] and over all pixels that have a class.

        All come from one confusion matrix of all images. ``miou`` is the mean over the classes that occur in targets
        or predictions, as Cityscapes has it; the ``iou_<class>`` of one that does not is NaN.
        """
        from qprune.tasks.confusion import segmentation_metrics  # takes seconds to import

        return segmentation_metrics(self.classes, self.ignore, self.names)

    @torch.no_grad()
    def panels(self, net: nn.Module, batch: Any, view: View) -> list[Tensor]:
        """Per image: it, the truth over it, the prediction of ``net`` (in eval mode) over it; uint8 (3, H, 3 * W)."""
        images, target = batch
        pixels = to_pixels(images, view.mean, view.std)
        truth, predicted = (overlay(pixels, labels, view.palette) for labels in (target, net(images).argmax(1)))
        return [side_by_side(*row) for row in zip(pixels, truth, predicted, strict=True)]

    def _weighted(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of training: by the weights of classes, of the hardest pixels."""
        if self.hardest == 1 and not self.class_weights:
            return self.loss(output, target)
        losses, weights = self._pixel_losses(output, target), self._pixel_weights(target)
        if self.hardest == 1:
            return (losses * weights).sum() / _not_0(weights.sum())
        ranked = (losses * weights).masked_fill(target.eq(self.ignore), -torch.inf).flatten(1)
        count = max(1, int(self.hardest * ranked.shape[1] + 1e-9))
        hardest, places = ranked.topk(count, dim=1, sorted=False)
        valid = hardest.ne(-torch.inf)  # true for NaN, which must show in the loss
        return (hardest.where(valid, 0).sum(1) / _not_0((weights.flatten(1).gather(1, places) * valid).sum(1))).mean()

    def _pixel_weights(self, target: Tensor) -> Tensor:
        """(N, H, W), 0 where there is no class."""
        labelled = target.ne(self.ignore)
        if not self.class_weights:
            return labelled.float()
        weights = constant(self.class_weights, target.device)
        return weights[target.where(labelled, 0).long()] * labelled

    def _pixel_losses(self, output: Tensor, target: Tensor) -> Tensor:
        expected = (len(target), self.classes, *target.shape[1:])
        if target.ndim != 3 or output.shape != expected:
            raise ValueError(
                f"output must have shape (N, {self.classes}, H, W), one value per class and pixel, and target "
                f"(N, H, W); received {tuple(output.shape)} and {tuple(target.shape)}"
            )
        return F.cross_entropy(output.float(), target, ignore_index=self.ignore, reduction="none")


def _not_0(total: Tensor) -> Tensor:
    return total.where(total > 0, 1)
