"""``"bn-scale"``: how large a normalization scales a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from qprune.importances.importance import Scored

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class BnScale(Scored):
    """The magnitude of a normalization's scale (its ``weight``, gamma), when the mask chooses.

    It stands at the output of the normalization. The penalty on scales that the source trains with is not added to the
    loss here.

    Source: Liu et al. (2017), arXiv:1708.06519.

    Example:
        >>> BnScale().problem(nn.BatchNorm2d(3))
        ''
    """

    sides: ClassVar[tuple[str, ...]] = ("output",)

    def problem(self, layer: Any) -> str:
        """The reason why ``layer`` has no scale for each channel; empty if it has one."""
        if getattr(layer, "affine", False) and getattr(layer, "weight", None) is not None:
            return ""
        return (
            'has no scale of its channels to rank them by; importance = "bn-scale" needs normalizations with '
            "affine parameters, such as BatchNorm2d"
        )

    def score(self, site: Any, seed: int) -> Tensor:
        """The magnitude of ``weight`` of each channel; see `Scored.score`."""
        scale: Tensor = site.host.weight.detach()
        return scale.float().abs()
