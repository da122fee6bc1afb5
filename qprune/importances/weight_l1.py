"""``"weight-l1"``: how large the weights of an output channel are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from qprune.importances.importance import Scored, mean_per_channel

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class WeightL1(Scored):
    """The mean magnitude of the weights that reach an output channel, when the mask chooses.

    Example:
        >>> from qprune.layers import sites
        >>> layer = PrunedLinear(2, 1, at="weight")
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -3.0]]))
        >>> WeightL1().score(next(sites(layer)), seed=0)
        tensor([2.])
    """

    sides: ClassVar[tuple[str, ...]] = ("weight",)

    def score(self, site: Any, seed: int) -> Tensor:
        """The mean of ``abs(weight)`` of each output channel; see `Scored.score`."""
        rows: Tensor = site.host.rows(site.host.weight.detach())
        return mean_per_channel(rows.float().abs(), axis=0)
