"""The scores of segmentation, from one confusion matrix."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nan
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from qprune.tasks.counting import count_pairs


class _FromConfusions(MulticlassConfusionMatrix):
    """Counts pairs of classes where the values lie; that of torchmetrics picks pixels out, for which a GPU waits."""

    confmat: Tensor

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add the pixels of a batch: scores (N, classes, H, W), and labels (N, H, W)."""
        self.confmat += count_pairs(target.long(), preds.argmax(1), self.num_classes)

    def shares(self) -> tuple[Tensor, Tensor]:
        """Intersection over union of each class, 0 where it is nowhere, and which classes are in any map at all."""
        counts = self.confmat.float()
        both, either = counts.diag(), counts.sum(0) + counts.sum(1)
        return (both / (either - both)).where(either > 0, 0.0), either > 0


class PixelAccuracy(_FromConfusions):
    """Share of the pixels whose class is right."""

    def compute(self) -> Tensor:
        """Right ones over all; NaN if there are none."""
        return self.confmat.trace() / self.confmat.sum()


class MeanIoU(_FromConfusions):
    """Mean intersection over union of the classes that are in a target or a prediction."""

    def compute(self) -> Tensor:
        """The mean of the shares; NaN if no class is in any."""
        shares, occurs = self.shares()
        weights = occurs.float()
        return ((weights * shares) / weights.sum()).sum()


class ClassIoU(_FromConfusions):
    """Intersection over union of each class, by name."""

    def __init__(self, names: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self.names = tuple(names)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """``{"iou_<class>": share}``; NaN for a class that is in no target and no prediction."""
        shares, occurs = self.shares()
        named = zip(self.names, shares.where(occurs, nan), strict=True)
        return {f"iou_{name}": share for name, share in named}


def segmentation_metrics(classes: int, ignore: int, names: Sequence[str]) -> MetricCollection:
    """``miou``, ``accuracy`` and, with names, ``iou_<class>``, sharing one confusion matrix."""
    # validate_args reads targets back to the host on every update
    options: dict[str, Any] = {"num_classes": classes, "ignore_index": ignore, "validate_args": False}
    metrics: dict[str, Any] = {"accuracy": PixelAccuracy(**options), "miou": MeanIoU(**options)}
    if names:
        metrics["iou"] = ClassIoU(names, **options)
    return MetricCollection(metrics, compute_groups=[list(metrics)])
