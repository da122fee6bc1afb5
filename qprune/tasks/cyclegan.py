"""`CycleGAN`: translation learnt from two sets of images without pairs."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from attrs import Factory, field, frozen
from torch import Tensor, nn

from qprune.errors import DataError
from qprune.tasks.checks import is_count, is_weight
from qprune.tasks.features import distance_name
from qprune.tasks.pictures import View, side_by_side, to_pixels
from qprune.tasks.pool import ImagePool
from qprune.tasks.translation import (
    Translated,
    discriminated,
    frozen_parameters,
    judged,
    mean_difference,
    translation_metrics,
    weighted_sum,
)


def _pool_of(task: Any) -> ImagePool:
    return ImagePool(task.pool)


@frozen
class CycleGAN:
    """Images of domain a into domain b and back.

    The network has ``generator_ab``, ``generator_ba``, ``discriminator_a`` and ``discriminator_b`` (each judges images
    of its domain), and gives ``generator_ab(a)`` in eval mode. Batches are ``(a, b)``, float (N, 3, H, W) in [-1, 1];
    how they are paired means nothing.

    One step has one loss, one backward pass and one optimizer. The discriminators are frozen where they judge for the
    generators, and see detached images where they learn, so each parameter has the gradient that the published order
    (generators first, then discriminators) gives it; an optimizer that treats parameters one by one, such as Adam, then
    makes the same update. ``generator_ab`` runs three times in it (two without ``identity``).

    Args:
        cycle: weight of the difference between an image and its reconstruction (L1), in both domains.
        identity: weight of the change that a generator makes to an image of its target domain (L1), times ``cycle``.
        pool: number of generated images kept per domain for the discriminators.

    Raises:
        ValueError: for a weight or a number below 0.

    Source: Zhu et al., 2017, arXiv:1703.10593, with the least-squares loss of Mao et al., 2017, arXiv:1611.04076.

    Example:
        >>> loss, output = CycleGAN().step(net.train(), (a, b))
        >>> output.parts.keys()
        dict_keys(['generator', 'cycle', 'identity', 'discriminator'])
    """

    generators: ClassVar[tuple[str, ...]] = ("generator_ab", "generator_ba")
    columns: ClassVar[tuple[str, ...]] = ("the image", "its translation", "that translated back")

    cycle: float = field(default=10.0, validator=is_weight)
    identity: float = field(default=0.5, validator=is_weight)
    pool: int = field(default=50, validator=is_count)
    monitor: str = field(factory=distance_name, init=False)
    mode: str = field(default="min", init=False)
    pool_a: ImagePool = field(default=Factory(_pool_of, takes_self=True), init=False, eq=False, repr=False)
    pool_b: ImagePool = field(default=Factory(_pool_of, takes_self=True), init=False, eq=False, repr=False)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean absolute difference of a reconstruction and its original, which needs no pairs."""
        return mean_difference(output, target)

    def step(self, net: nn.Module, batch: Any) -> tuple[Tensor, Translated]:
        """Forward ``(a, b)``: all losses where ``net.training``, else that of reconstructing a."""
        a, b = batch
        if net.training:
            return self._train(net, a, b)
        if not hasattr(net, "generator_ba"):
            raise DataError(
                "CycleGAN is scored by how well the generator that leads back reconstructs images, and an exported "
                "file holds the other one alone. Evaluate the run it came of."
            )
        fake_b = net(a)
        return self.loss(net.generator_ba(fake_b), a), Translated(fake_b, {})  # type: ignore[operator]

    def distillation(self, output: Translated, batch: Any, teacher: Any, temperature: float) -> Tensor:
        """Mean absolute difference of the generated images from a teacher's, the sum over both domains.

        A temperature means nothing.
        """
        a, b = batch
        assert output.back is not None  # of a step in training
        to_b = mean_difference(output.image, teacher.generator_ab(a))
        return to_b + mean_difference(output.back, teacher.generator_ba(b))

    def metrics(self) -> Any:
        """In training the means of the loss parts, unweighted; in evaluation the Fréchet distance, ``monitor``.

        The parts are ``generator`` (fooling the discriminators), ``discriminator``, ``cycle`` and ``identity``, each
        the sum over both domains.
        """
        return translation_metrics(tuple(self._weights()), self.monitor)

    @torch.no_grad()
    def panels(self, net: Any, batch: Any, view: View) -> list[Tensor]:
        """Per image: a, its translation, its reconstruction by ``net`` (in eval mode); uint8 (3, H, 3 * W)."""
        a, _ = batch
        fake_b = net.generator_ab(a)
        columns = (to_pixels(images, view.mean, view.std) for images in (a, fake_b, net.generator_ba(fake_b)))
        return [side_by_side(*row) for row in zip(*columns, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The pools."""
        return {"pool_a": self.pool_a.state_dict(), "pool_b": self.pool_b.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the pools."""
        self.pool_a.load_state_dict(state["pool_a"])
        self.pool_b.load_state_dict(state["pool_b"])

    def _train(self, net: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Translated]:
        fake_a, fake_b = net.generator_ba(b), net.generator_ab(a)
        with frozen_parameters(net.discriminator_a, net.discriminator_b):
            verdicts = net.discriminator_a(fake_a), net.discriminator_b(fake_b)
        fooled_a, fooled_b = (judged(F.mse_loss, verdict, real=True) for verdict in verdicts)
        parts = {"generator": fooled_a + fooled_b}
        parts["cycle"] = mean_difference(net.generator_ba(fake_b), a) + mean_difference(net.generator_ab(fake_a), b)
        if self.identity:
            parts["identity"] = mean_difference(net.generator_ba(a), a) + mean_difference(net.generator_ab(b), b)
        on_a = discriminated(F.mse_loss, net.discriminator_a, a, self.pool_a.exchange(fake_a))
        on_b = discriminated(F.mse_loss, net.discriminator_b, b, self.pool_b.exchange(fake_b))
        loss, parts = weighted_sum(parts | {"discriminator": on_a + on_b}, self._weights())
        return loss, Translated(fake_b, parts, fake_a)

    def _weights(self) -> dict[str, float]:
        weights = {"generator": 1.0, "cycle": self.cycle, "discriminator": 1.0}
        return weights | ({"identity": self.cycle * self.identity} if self.identity else {})
