"""The scores of segmentation, from one confusion matrix."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nan
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex


class PixelAccuracy(MulticlassConfusionMatrix):
    """Share of the pixels whose class is right."""

    def compute(self) -> Tensor:
        """Right ones over all; NaN if there are none."""
        return self.confmat.trace() / self.confmat.sum()


class ClassIoU(MulticlassJaccardIndex):
    """Intersection over union of each class, by name."""

    def __init__(self, names: Sequence[str], **options: Any) -> None:
        super().__init__(average="none", **options)
        self.names = tuple(names)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """``{"iou_<class>": share}``; NaN for a class that is in no target and no prediction."""
        occurs = (self.confmat.sum(0) + self.confmat.sum(1)) > 0
        shares = super().compute().where(occurs, nan)
        return {f"iou_{name}": share for name, share in zip(self.names, shares, strict=True)}


def segmentation_metrics(classes: int, ignore: int, names: Sequence[str]) -> MetricCollection:
    """``miou``, ``accuracy`` and, with names, ``iou_<class>``, sharing one confusion matrix."""
    # validate_args reads targets back to the host on every update
    options: dict[str, Any] = {"num_classes": classes, "ignore_index": ignore, "validate_args": False}
    metrics: dict[str, Any] = {"accuracy": PixelAccuracy(**options), "miou": MulticlassJaccardIndex(**options)}
    if names:
        metrics["iou"] = ClassIoU(names, **options)
    return MetricCollection(metrics, compute_groups=[list(metrics)])
