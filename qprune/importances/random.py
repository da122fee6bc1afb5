"""``"random"``: the control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from zlib import crc32

from attrs import frozen

from qprune.importances.importance import Scored

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Random(Scored):
    """Random numbers, the same whenever a mask chooses: from the seed of the training and the name of the site.

    Example:
        >>> from qprune.layers import sites
        >>> (site,) = sites(PrunedConv2d(2, 3, 1))
        >>> torch.equal(Random().score(site, seed=0), Random().score(site, seed=0))
        True
    """

    sides: ClassVar[tuple[str, ...]] = ("input", "weight", "output")

    def score(self, site: Any, seed: int) -> Tensor:
        """Numbers between 0 and 1, on the CPU; see `Scored.score`."""
        import torch  # not at the top: specs are read without it

        generator = torch.Generator().manual_seed(seed ^ crc32(site.name.encode()))
        return torch.rand(site.mask.channels, generator=generator)
