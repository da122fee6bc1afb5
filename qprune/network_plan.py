"""Rules applied to one network and one length of training: every site with its events in steps."""

from collections.abc import Iterable
from typing import Any

import attrs
from attrs import frozen
from torch import nn

from qprune.complete import quantized_layers, without_integers
from qprune.errors import PlanError, as_lines
from qprune.flow import Flow
from qprune.functional import kept_channels
from qprune.importances import IMPORTANCES, Measured
from qprune.layers import ChannelMask, FakeQuant, Site, sites
from qprune.plan_text import plan_head, plan_html, plan_text
from qprune.schedules import Inherited, Layerwise, Schedule, Stepwise, Timeline
from qprune.schedules.durations import in_epochs
from qprune.sequences import Sequences, sequences

Key = tuple[str, str]
MOST_CHOICES = 10_000


@frozen
class SitePlan:
    """What happens to one mask or quantizer."""

    site: str  # ``<module path>.<side>``
    kind: str  # ``"mask"`` or ``"quant"``
    timeline: Timeline  # its events in steps
    channels: int = 0  # of the mask (0 for a quantizer)
    kept: int = 0  # channels that the last refresh keeps
    importance: str = ""  # of the mask; empty for a quantizer
    bits: int = 0  # of the quantizer (0 for a mask)
    inherited: bool = False  # whether its mask is taken over as it is
    coupled: tuple[str, ...] = ()  # the sites that share this mask, its own among them; empty if it chooses alone

    def frozen_at(self, step: int) -> bool:
        """Whether the mask never changes from ``step`` on."""
        return self.inherited or (self.timeline.freeze is not None and self.timeline.freeze <= step)

    def line(self, steps_per_epoch: int | None) -> str:
        """One row of the printed time line."""
        at = in_epochs(self.timeline.end, steps_per_epoch)
        if self.kind == "quant":
            return f"{at:>18}  {self.site}: {self.bits} bits from here on"
        if self.inherited:
            return f"{'from the start':>18}  {self.site}: mask taken over{self._shared()}"
        at = in_epochs(self.timeline.freeze or 0, steps_per_epoch)
        kept = f"{self.kept} of {self.channels} channels kept"
        return f"{at:>18}  {self.site}: {kept} ({self.importance}){self._shared()}"

    def _shared(self) -> str:
        if len(self.coupled) < 2:
            return ""
        first = self.coupled[0]
        return f", one mask for {len(self.coupled)} sites" if self.site == first else f", the mask of {first}"


@frozen
class Plan:
    """Every site of a network with what happens to it, in the order in which it happens; prints as a time line.

    Attributes:
        sites: one entry for each mask and quantizer, by its last event.
        steps: steps of training; None if open.
        steps_per_epoch: steps of one epoch; None if unknown.
        notes: remarks that are no mistakes.
        cost: totals before and after, where they were asked for.
    """

    sites: tuple[SitePlan, ...]
    steps: int | None = None
    steps_per_epoch: int | None = None
    notes: tuple[str, ...] = ()
    cost: dict[str, Any] = attrs.field(factory=dict)

    @property
    def pruned_by(self) -> int:
        """The step at which every mask is frozen and its sequence is over."""
        return max((s.timeline.end for s in self.sites if s.kind == "mask"), default=0)

    @property
    def finished_by(self) -> int:
        """The step from which on every mask is frozen and every quantizer active."""
        return max((site.timeline.end for site in self.sites), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return attrs.asdict(self)

    def text(self, full: bool = False) -> str:
        """The plan as printed, in which many sites that go alike share a line.

        Args:
            full: a line for every site and every note.
        """
        return plan_text(self, full)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Plan({plan_head(self)})"

    def _repr_html_(self) -> str:
        return plan_html(self)


def make_plan(
    net: nn.Module, flow: Flow | None = None, *, steps_per_epoch: int | None = None, steps: int | None = None
) -> Plan:
    """Resolve the schedules of all compressors in ``net`` and refuse what cannot work.

    Args:
        net: a network with compressors in place.
        flow: its traced picture; needed for layerwise order by data flow.
        steps_per_epoch: optimizer steps of one epoch, needed for durations in epochs.
        steps: length of training, if it is known.

    Raises:
        PlanError: with one line for every mistake: a compressor without a schedule, epochs without ``steps_per_epoch``,
            a share of a run without ``steps``, order by data flow without a flow, a refresh that nothing was measured
            for, events past the end, rules that prune nothing.
    """
    ordered = sequences(net, flow, steps_per_epoch, steps)
    times, mistakes = _timelines(net, ordered, steps_per_epoch)
    tied = [s for s in sites(net) if s.mask is not None and s.mask.ranking.follows]
    found = [(site, kind) for site in sites(net) for kind in ("mask", "quant") if (site.name, kind) in times]
    entries = [_entry(site, kind, times[site.name, kind]) for site, kind in found]
    masks = [entry for entry in entries if entry.kind == "mask"]
    if masks and not mistakes and all(map(_drops_nothing, masks)):
        mistakes.append("The rules prune nothing: every mask keeps all of its channels. Raise sparsity.")
    mistakes += [line for entry in entries for line in _mistakes(entry, steps, steps_per_epoch)]
    if mistakes:
        raise PlanError(as_lines(mistakes))
    entries.sort(key=lambda entry: entry.timeline.end)
    notes = (*ordered.notes, *_notes(net, entries, flow), *(f"{s.name} follows {_sources(s)}" for s in tied))
    return Plan(tuple(entries), steps, steps_per_epoch, notes)


def _timelines(
    net: nn.Module, ordered: Sequences, steps_per_epoch: int | None
) -> tuple[dict[Key, Timeline], list[str]]:
    found: dict[Key, Timeline] = {}
    mistakes = list(ordered.mistakes)
    for site in sites(net):
        for kind, part in (("mask", site.mask), ("quant", site.quant)):
            if part is None or (isinstance(part, ChannelMask) and part.ranking.follows):
                continue
            schedule = part.schedule
            if kind == "mask" and schedule is not None:
                if site.name not in ordered.schedules:
                    continue  # as was told
                schedule = ordered.schedules[site.name]
            try:
                found[site.name, kind] = _timeline(part, schedule, steps_per_epoch)
            except ValueError as error:
                mistakes.append(f"{site.name}: {error}.")
    return found, mistakes


def _timeline(part: ChannelMask | FakeQuant, schedule: Schedule | None, steps_per_epoch: int | None) -> Timeline:
    if schedule is None:
        raise ValueError(
            f"its {type(part).__name__} has no schedule, so it would never act; give it one or leave it out"
        )
    _check_choices(schedule)
    return schedule.timeline(steps_per_epoch)


def _check_choices(schedule: Any) -> None:
    """Refuse a schedule, its durations in steps, whose time line alone would fill the memory."""
    times, way_out = 1, ""
    if isinstance(schedule, Stepwise):
        times, way_out = schedule.times, "lower times"
    elif isinstance(schedule, Layerwise):
        times, way_out = int(schedule.interval or 0) // int(schedule.refresh or 1), "raise refresh"
    if times > MOST_CHOICES:
        raise ValueError(
            f"its mask would be chosen {times:,} times, and at most {MOST_CHOICES:,} are planned; {way_out}"
        )


def _entry(site: Site, kind: str, timeline: Timeline) -> SitePlan:
    if kind == "quant":
        return SitePlan(site.name, kind, timeline, bits=site.quant.bits)  # type: ignore[union-attr]
    mask = site.mask
    assert mask is not None
    final = timeline.refreshes[-1][1] if timeline.refreshes else 0.0
    kept = kept_channels(mask.channels, final, mask.multiple_of, mask.groups)
    inherited = isinstance(mask.schedule, Inherited)
    shape = (mask.channels, kept, mask.importance)
    return SitePlan(site.name, kind, timeline, *shape, inherited=inherited, coupled=mask.coupled)


def _drops_nothing(entry: SitePlan) -> bool:
    return not entry.inherited and entry.kept == entry.channels


def _mistakes(entry: SitePlan, steps: int | None, steps_per_epoch: int | None) -> Iterable[str]:
    first_refresh = entry.timeline.refreshes[0][0] if entry.timeline.refreshes else None
    if first_refresh == 0 and isinstance(IMPORTANCES.get(entry.importance), Measured):
        yield f"{entry.site}: its mask is chosen at step 0, before anything was measured; start at step 1 or later."
    if steps is not None and entry.timeline.end > steps:
        end, length = in_epochs(entry.timeline.end, steps_per_epoch), in_epochs(steps, steps_per_epoch)
        what, way_out = _LATE[entry.kind]
        yield (
            f"{entry.site}: {what} at step {end}, but training ends at step {length}; "
            f"train longer (train.length){way_out}."
        )


_LATE = {
    "mask": ("pruning ends", ', start earlier, or give finish = "35%" instead, which spreads the intervals by itself'),
    "quant": ("quantization starts", " or start earlier"),
}


def _notes(net: nn.Module, entries: list[SitePlan], flow: Flow | None) -> Iterable[str]:
    for entry in entries:
        if entry.kind == "mask" and _drops_nothing(entry):
            yield f"{entry.site} keeps all of its {entry.channels} channels at this sparsity"
    if flow is not None:
        yield from _fallbacks(net, flow)
        yield from _differing(net, flow)
        yield from _reviving(net, flow)
        yield from _unquantized(flow)


def _unquantized(flow: Flow) -> Iterable[str]:
    paths = without_integers(flow)
    wide = [str(call.path) for call in quantized_layers(flow) if call.layer.beyond_float()]  # type: ignore[union-attr,operator]
    if wide:
        yield f"integer sums may pass 2**24, so these compute in float64 in eval: {', '.join(wide)}"
    if paths:
        yield f"exported, these compute with floats, because what they read has no quantizer: {', '.join(paths)}"


def _fallbacks(net: nn.Module, flow: Flow) -> Iterable[str]:
    for site in sites(net):
        if site.mask is None or not site.mask.ranking.unrectified:
            continue
        makers = [flow.source(call) if site.side == "input" else call for call in flow.of(site.path)]
        if not all(maker is not None and flow.rectified(maker) for maker in makers):
            fallback = f"{site.mask.importance} falls back to {site.mask.ranking.unrectified}"
            yield f"{site.name} is not rectified: {fallback} there"


def _differing(net: nn.Module, flow: Flow) -> Iterable[str]:
    readers: dict[int, list[Site]] = {}
    for site in sites(net):
        if site.side == "input" and site.mask is not None and flow.of(site.path):
            readers.setdefault(flow.of(site.path)[0].inputs[0], []).append(site)
    for members in readers.values():
        names = [site.name for site in members]
        if len(names) > 1 and not set(names) <= set(members[0].mask.coupled):  # type: ignore[union-attr]
            yield f"one tensor is masked separately by {', '.join(names)}"


def _reviving(net: nn.Module, flow: Flow) -> Iterable[str]:
    masked = [site for site in sites(net) if site.side == "weight" and site.mask is not None]
    for path, source in [(path, site.name) for site in masked for path, _ in flow.norms_reading(site.path)]:
        norm: Any = net.get_submodule(path)
        if (norm.affine or norm.track_running_stats) and getattr(norm, "output_mask", None) is None:
            yield f"{path} does not follow {source}: its shift brings dropped channels back; swap ties the two"


def _sources(site: Site) -> str:
    return ", ".join(name for name, _ in site.mask.tied) if site.mask is not None else ""
