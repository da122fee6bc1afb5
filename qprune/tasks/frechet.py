"""The metrics of image translation: means of the loss parts, and the Fréchet distance of what was generated."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3

from qprune.host import on_host
from qprune.tasks.features import FixedFeatures, inception_weights
from qprune.tasks.pictures import to_pixels
from qprune.tasks.translation import Translated


class FrechetDistance(FrechetInceptionDistance):
    """Fréchet distance between generated and real images, over all of them; by Inception's features if called "fid".

    Each set of features is summed up as a normal distribution. Only what was generated in evaluation counts: there a
    `Translated` has no parts. Without any there is no result; with a single one it is NaN.

    Source: Heusel et al., 2017, arXiv:1706.08500.
    """

    def __init__(self, name: str) -> None:
        super().__init__(feature=_Apart(_features(name == "fid")))

    def update(self, output: Translated, target: Tensor) -> None:  # type: ignore[override]
        """Add generated images and real ones, (N, 3, H, W) in [-1, 1]; as many as there are of each."""
        if not output.parts:
            super().update(_bytes(output.image), real=False)
            super().update(_bytes(target), real=True)

    def compute(self) -> Any:
        """The distance, at least 0 but for rounding."""
        fake, real = on_host([self.fake_features_num_samples, self.real_features_num_samples])
        if fake == 0:
            return {}
        if min(fake, real) < 2:
            return torch.full((), torch.nan)
        return super().compute()

    def persistent(self, mode: bool = False) -> None:
        """Stay out of checkpoints: no evaluation goes on after one."""


class PartMeans(Metric):
    """Means of the loss parts of these names per image; no result where a `Translated` has none."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("total", torch.zeros(len(self.names), dtype=torch.float64), "sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), "sum")

    def update(self, output: Translated, target: Tensor) -> None:
        """Add the parts of a batch."""
        if output.parts:
            self.total += torch.stack([output.parts[name] for name in self.names]) * len(target)
            self.count += len(target)

    def compute(self) -> dict[str, Tensor]:
        """``{"<part>": mean}``."""
        total, count = on_host([self.total, self.count])
        return dict(zip(self.names, total / count, strict=True)) if count else {}


class _Apart(nn.Module):
    """A network that is no part of the metric that holds it: it is shared, and not saved with it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.held, self.num_features = (net,), net.num_features

    def forward(self, pixels: Tensor) -> Tensor:
        return self.held[0].to(pixels.device)(pixels)


@cache
def _features(inception: bool) -> nn.Module:
    if not inception:
        return FixedFeatures()
    net = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(inception_weights()))
    net.num_features = 2048
    return net


def _bytes(images: Tensor) -> Tensor:
    return to_pixels(images, mean=(0.5,), std=(0.5,))
