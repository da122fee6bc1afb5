"""`plan_text`: a plan as lines, a line for each site or for many that go alike."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from qprune.escaping import visible
from qprune.schedules.durations import in_epochs
from qprune.tables import html_table

if TYPE_CHECKING:
    from qprune.network_plan import Plan, SitePlan

SHOWN = 8  # sites that go alike, or notes, which are shown one by one
WIDTH = 18  # of the column of steps
MORE = "Sites that go alike share a line; all of them: qprune plan --full, or plan.text(full=True)."


def plan_text(plan: "Plan", full: bool = False) -> str:
    """A head with totals, the time line, costs and notes.

    Sites go alike that have the same compressor on the same side, by the same importance or with the same bits from the
    same step on. More than eight of these have one line, with what they keep together; of more than eight notes the
    last are counted. In ``full`` there is a line for every site and every note.

    Example:
        >>> print(plan_text(qprune.plan("digits/a75_layerwise")).splitlines()[1])
              35 (1.84 ep)  stem.act.output: 8 of 32 channels kept (activation-l1)
    """
    rows = [site.line(plan.steps_per_epoch) for site in plan.sites] if full else list(_rows(plan))
    costs = [f"{name}: {value}" for name, value in plan.cost.items()]
    notes = [f"note: {note}" for note in plan.notes]
    if len(notes) > SHOWN and not full:
        notes[SHOWN:] = [f"and {len(notes) - SHOWN} more notes"]
    more = [MORE] if len(rows) + len(notes) < len(plan.sites) + len(plan.notes) else []
    return "\n".join([plan_head(plan), *rows, *costs, *notes, *more])


def plan_html(plan: "Plan") -> str:
    """The same for a notebook: a table of steps, sites and what happens there, everything in it escaped.

    Example:
        >>> plan_html(qprune.plan("digits/a75_layerwise")).count("<tr>")
        7
    """
    lines = (line.strip().partition("  ") for line in _rows(plan))
    rows = [[at, *rest.strip().rpartition(": ")[::2]] for at, _, rest in lines]
    costs = [f"{name}: {value}" for name, value in plan.cost.items()]
    notes = [*costs, *(f"note: {note}" for note in plan.notes)]
    told = "".join(f"<p>{escape(visible(note))}</p>" for note in notes)
    return f"<p>{escape(plan_head(plan))}</p>{html_table(('step', 'site', 'what'), rows, right='rll')}{told}"


def plan_head(plan: "Plan") -> str:
    """How many masks and quantizers there are, and by when they are finished.

    Example:
        >>> plan_head(qprune.plan("digits/a75_layerwise"))
        '6 masks, 0 quantizers, finished by step 184 (9.68 ep) of 475 (25.00 ep)'
    """
    masks = sum(site.kind == "mask" for site in plan.sites)
    counts = f"{_count(masks, 'mask')}, {_count(len(plan.sites) - masks, 'quantizer')}"
    head = f"{counts}, finished by step {in_epochs(plan.finished_by, plan.steps_per_epoch)}"
    return head + ("" if plan.steps is None else f" of {in_epochs(plan.steps, plan.steps_per_epoch)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _rows(plan: "Plan") -> Iterator[str]:
    groups: dict[tuple[object, ...], list[SitePlan]] = {}
    for site in plan.sites:
        groups.setdefault(_kind(site), []).append(site)
    for site in plan.sites:
        alike = groups[_kind(site)]
        if len(alike) <= SHOWN:
            yield site.line(plan.steps_per_epoch)
        elif site is alike[0]:
            yield _line(alike, plan.steps_per_epoch)


def _kind(site: "SitePlan") -> tuple[object, ...]:
    start = site.timeline.activate if site.kind == "quant" else None
    return (site.kind, site.site.rpartition(".")[2], site.importance, site.bits, site.inherited, start)


def _line(alike: Sequence["SitePlan"], steps_per_epoch: int | None) -> str:
    first = alike[0]
    who = f"{first.site} and {len(alike) - 1} more"
    if first.kind == "quant":
        return f"{in_epochs(first.timeline.end, steps_per_epoch):>{WIDTH}}  {who}: {first.bits} bits from here on"
    masks = {site.coupled or (site.site,): site for site in alike}
    shared = f", {len(masks)} masks shared by them" if len(masks) < len(alike) else ""
    if first.inherited:
        return f"{'from the start':>{WIDTH}}  {who}: masks taken over{shared}"
    steps = sorted({site.timeline.freeze or 0 for site in alike})
    at = (f"{steps[0]} to " if len(steps) > 1 else "") + in_epochs(steps[-1], steps_per_epoch)
    kept, channels = (sum(getattr(site, name) for site in masks.values()) for name in ("kept", "channels"))
    return f"{at:>{WIDTH}}  {who}: {kept:,} of {channels:,} channels kept ({first.importance}){shared}"
