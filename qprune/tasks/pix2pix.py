"""`Pix2Pix`: translation learnt from pairs of images."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor, nn

from qprune.tasks.checks import is_weight
from qprune.tasks.features import distance_name
from qprune.tasks.pictures import View, side_by_side, to_pixels
from qprune.tasks.translation import (
    Translated,
    discriminated,
    frozen_parameters,
    judged,
    mean_difference,
    translation_metrics,
    weighted_sum,
)


@frozen
class Pix2Pix:
    """Images of domain a into their partners in domain b.

    The network has ``generator`` and ``discriminator`` (which judges ``torch.cat([a, b], 1)``), and gives
    ``generator(a)`` in eval mode. Batches are ``(a, b)``, pairs of float (N, 3, H, W) in [-1, 1].

    One step has one loss, one backward pass and one optimizer: the discriminator is frozen where it judges for the
    generator, and sees detached images where it learns. Both learn from the network before the step; the published
    order updates the discriminator first and lets the generator learn from the updated one.

    Args:
        l1: weight of the mean absolute difference from the partner.

    Raises:
        ValueError: for a weight below 0.

    Source: Isola et al., 2017, arXiv:1611.07004.

    Example:
        >>> loss, output = Pix2Pix().step(net.train(), (a, b))
        >>> output.parts.keys()
        dict_keys(['generator', 'l1', 'discriminator'])
    """

    generators: ClassVar[tuple[str, ...]] = ("generator",)
    columns: ClassVar[tuple[str, ...]] = ("the image", "its translation", "the truth")

    l1: float = field(default=100.0, validator=is_weight)
    monitor: str = field(factory=distance_name, init=False)
    mode: str = field(default="min", init=False)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean absolute difference of a translation and the partner."""
        return mean_difference(output, target)

    def step(self, net: nn.Module, batch: Any) -> tuple[Tensor, Translated]:
        """Forward ``(a, b)``: all losses where ``net.training``, else that of the translation."""
        a, b = batch
        if net.training:
            return self._train(net, a, b)
        fake = net(a)
        return self.loss(fake, b), Translated(fake, {})

    def distillation(self, output: Translated, batch: Any, teacher: Any, temperature: float) -> Tensor:
        """Mean absolute difference of the generated images from a teacher's; a temperature means nothing."""
        return mean_difference(output.image, teacher.generator(batch[0]))

    def metrics(self) -> Any:
        """In training the means of the loss parts, unweighted; in evaluation the Fréchet distance, ``monitor``.

        The parts are ``generator`` (fooling the discriminator), ``discriminator`` and ``l1``.
        """
        return translation_metrics(tuple(self._weights()), self.monitor)

    @torch.no_grad()
    def panels(self, net: nn.Module, batch: Any, view: View) -> list[Tensor]:
        """Per image: a, its translation by ``net`` (in eval mode), b; uint8 (3, H, 3 * W)."""
        a, b = batch
        columns = (to_pixels(images, view.mean, view.std) for images in (a, net(a), b))
        return [side_by_side(*row) for row in zip(*columns, strict=True)]

    def _train(self, net: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Translated]:
        fake = net.generator(a)
        l1 = mean_difference(fake, b)  # first: it refuses sizes that cat would stumble over
        real_pair, fake_pair = torch.cat([a, b], 1), torch.cat([a, fake], 1)
        criterion = F.binary_cross_entropy_with_logits
        with frozen_parameters(net.discriminator):
            verdict = net.discriminator(fake_pair)
        parts = {"generator": judged(criterion, verdict, real=True), "l1": l1}
        parts["discriminator"] = discriminated(criterion, net.discriminator, real_pair, fake_pair)
        loss, parts = weighted_sum(parts, self._weights())
        return loss, Translated(fake, parts)

    def _weights(self) -> dict[str, float]:
        return {"generator": 1.0, "l1": self.l1, "discriminator": 1.0}
