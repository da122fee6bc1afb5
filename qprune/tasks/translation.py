"""Output, losses and metrics that the tasks of image translation share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Criterion = Callable[[Tensor, Tensor], Tensor]


class Translated(NamedTuple):
    """The output of a step of image translation.

    Attributes:
        image: the generated images, (N, 3, H, W) in [-1, 1].
        parts: in training the losses by name, detached scalars, unweighted; in evaluation empty.
        back: of CycleGAN in training, the images generated in the other direction.

    Example:
        >>> Translated(torch.zeros(2, 3, 5, 7), {}).image.shape
        torch.Size([2, 3, 5, 7])
    """

    image: Tensor
    parts: dict[str, Tensor]
    back: Tensor | None = None


@contextmanager
def frozen_parameters(*nets: nn.Module) -> Iterator[None]:
    """Freeze the parameters of ``nets`` inside the ``with`` block."""
    learning = [parameter for net in nets for parameter in net.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def judged(criterion: Criterion, verdict: Tensor, real: bool) -> Tensor:
    """Loss of a discriminator's verdict, of any shape, against 1 where it should be "real", else 0; in float32."""
    verdict = verdict.float()
    return criterion(verdict, torch.full_like(verdict, float(real)))


def discriminated(criterion: Criterion, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean of a discriminator's losses on real and on generated images; these are detached."""
    on_real = judged(criterion, discriminator(real), real=True)
    return (on_real + judged(criterion, discriminator(fake.detach()), real=False)) / 2


def mean_difference(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference (L1) of images (N, C, H, W), a scalar in float32."""
    if output.shape != target.shape:
        raise ValueError(
            f"generated images must have the shape of those they are compared with, {tuple(target.shape)}; received "
            f"{tuple(output.shape)}: choose image sizes that the generator keeps"
        )
    return F.l1_loss(output.float(), target.float())


def weighted_sum(parts: dict[str, Tensor], weights: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimize, and its parts as they are reported."""
    loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return loss, {name: part.detach() for name, part in parts.items()}


def translation_metrics(parts: Sequence[str], distance: str) -> Any:
    """Means of the loss parts, where they are given (in training), and the Fréchet distance, where not."""
    from torchmetrics import MetricCollection  # takes seconds to import

    from qprune.tasks.frechet import FrechetDistance, PartMeans

    return MetricCollection({"parts": PartMeans(parts), distance: FrechetDistance(distance)}, compute_groups=False)
