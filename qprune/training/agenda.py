"""`Agenda`: what is due at which step, as a plan says it."""

from collections.abc import Iterator
from typing import Any

from qprune.layers import Site
from qprune.network_plan import Plan
from qprune.schedules import Timeline
from qprune.training.choosing import sparsity_of


class Agenda:
    """The time lines of a plan, to be asked for the sites of its network, step by step."""

    def __init__(self, plan: Plan) -> None:
        self.timelines = {(each.site, each.kind): each.timeline for each in plan.sites}
        self._marks = {step for timeline in self.timelines.values() for step in timeline.steps()}

    def has(self, step: int) -> bool:
        """Whether anything begins or ends at a step."""
        return step in self._marks

    def sparsity(self, site: Site, step: int) -> float | None:
        """What a site's mask is to drop from now on; None if it stays as it is."""
        return dict(self._timeline(site, "mask").refreshes).get(step)

    def starts(self, site: Site, step: int) -> bool:
        """Whether a site's quantizer becomes active."""
        return self._timeline(site, "quant").activate == step

    def measures(self, site: Site, kind: str, step: int) -> bool:
        """Whether a site's mask or quantizer measures in the forwards of a step."""
        return self._timeline(site, kind).measuring(step)

    def all_frozen(self, step: int) -> bool:
        """Whether every mask is frozen."""
        return all(step >= each.freeze for each in self.timelines.values() if each.freeze is not None)

    def events(self, site: Site, step: int) -> Iterator[dict[str, Any]]:
        """What happens to a site, as it is told."""
        due, mask, quant = self.sparsity(site, step), site.mask, site.quant
        if due is not None and mask is not None:
            frozen = self._timeline(site, "mask").freeze == step
            yield {"step": step, "site": site.name, "sparsity": sparsity_of(mask, due), "frozen": frozen}
        if quant is not None and self.starts(site, step):
            yield {"step": step, "site": site.name, "bits": quant.bits}

    def as_text(self) -> dict[str, str]:
        """The time lines as a checkpoint holds them."""
        return {f"{name} ({kind})": repr(timeline) for (name, kind), timeline in self.timelines.items()}

    def _timeline(self, site: Site, kind: str) -> Timeline:
        return self.timelines.get((site.name, kind), Timeline())
