"""What the files beside a model tell about its run, as the tables of its page."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import frozen

from qprune.costs import chain_cells, chain_of
from qprune.errors import QpruneError
from qprune.readable import score_text
from qprune.run_record import RunRecord
from qprune.tables import short
from qprune.training import History

FLOAT_BITS, FLOAT_BYTES = 32, 4
EXPORT = "qprune export {} writes the file, compares and times it."


@frozen
class Table:
    """A table: its header, its lines, and which columns are right-aligned, as for `qprune.tables.html_table`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: str = ""


@frozen
class Tile:
    """A number that is seen first, with what it is and what stands beside it."""

    title: str
    value: str
    beside: str


def tiles(record: RunRecord) -> Iterator[Tile]:
    """The score, and what the network costs."""
    costs = record.facts["costs"]
    beside = "less is better" if record.mode == "min" else "more is better"
    told = "not scored on test images" if record.score is None else beside
    score = "-" if record.score is None else score_text(record.monitor, record.score)
    yield Tile(f"{record.monitor} on test", score, told)
    yield _share("parameters", costs["parameters"], costs["parameters_kept"], short)
    if "macs_kept" in costs and "macs" in costs:
        yield _share("MACs", costs["macs"], costs["macs_kept"], short)
    yield _share("packed weights", FLOAT_BYTES * costs["parameters"], costs["packed_bytes"], _bytes)
    if record.milliseconds is not None:
        yield Tile("one image", _ms(record.milliseconds), "exported, by its certificate")


def _share(title: str, dense: float, now: float, told: Callable[[float], str]) -> Tile:
    return Tile(title, told(now), f"{100 * now / max(1, dense):.1f} % of {told(dense)}")


def training_facts(record: RunRecord) -> Table:
    """What was trained, and how."""
    spec = record.spec
    named = spec.model.arch or ("your own" if spec.model.is_own else "declared layer by layer")
    steps = record.facts.get("steps")
    length = f"{spec.train.length}, {steps:,} steps" if type(steps) is int else str(spec.train.length)
    optimizer = spec.train.optimizer
    rows = [
        ["network", named if spec.model.width == 1 else f"{named}, width {spec.model.width:g}"],
        ["task", "your own" if spec.task.is_own else spec.task.name],
        ["data", "handed over" if spec.data.is_own else spec.data.name],
        ["length", f"{length} in batches of {spec.train.batch}"],
        ["optimizer", f"{optimizer.name}, learning rate {optimizer.lr:g}"],
        ["teacher", "" if spec.train.teacher is None else spec.train.teacher.run or "handed over"],
        ["numerics", spec.numerics],
        ["seed", str(spec.seed)],
    ]
    return Table(("", ""), [row for row in rows if row[1]])


def chain_facts(record: RunRecord) -> tuple[str, Table]:
    """A sentence about what the run starts from, and the runs of the chain."""
    reports = chain_of(record.name, record.root) or [record.facts]
    header, rows = chain_cells(reports)
    init = record.facts["init"]
    if init is None:
        told = "The run starts from nothing."
    elif len(reports) == 1:
        told = f"The run starts from {init}, whose report is not at hand."
    else:
        told = f"The run starts from {init}. The first run of the chain is the first here."
    return told, Table(header, rows, "l" + "r" * (len(header) - 1))


def earlier(record: RunRecord) -> Iterator[RunRecord]:
    """The runs before this one in its chain, the last first, as far as they are at hand."""
    for report in reversed(chain_of(record.name, record.root)[:-1]):
        try:
            yield RunRecord.open(record.root / report["name"])
        except QpruneError:
            return


def score_facts(record: RunRecord) -> Table:
    """Every score of every split."""
    scores = record.facts["scores"]
    names = dict.fromkeys(name for each in scores.values() for name in each)
    rows = [[name, *(_score(name, each.get(name)) for each in scores.values())] for name in names]
    return Table(["", *(f"on {split}" for split in scores)], rows, "l" + "r" * len(scores))


def _score(name: str, value: float | None) -> str:
    return "-" if value is None or value != value else score_text(name, value)


def cost_facts(record: RunRecord) -> Table:
    """The ledger: each cost of the dense network and of this one."""
    costs = record.facts["costs"]
    rows = [_line("parameters", costs["parameters"], costs["parameters_kept"], lambda value: f"{value:,}")]
    if {"macs", "macs_kept"} <= costs.keys():
        rows.append(_line("MACs", costs["macs"], costs["macs_kept"], short))
    if {"macs", "bit_operations"} <= costs.keys():
        rows.append(_line("bit operations", costs["macs"] * FLOAT_BITS**2, costs["bit_operations"], short))
    rows.append(_line("packed weights", FLOAT_BYTES * costs["parameters"], costs["packed_bytes"], _bytes))
    if {"features", "feature_bytes"} <= costs.keys():
        rows.append(_line("activations", FLOAT_BYTES * costs["features"], costs["feature_bytes"], _bytes))
    for file, certificate in record.certificates()[0]:
        name, times = file.name.removesuffix(".certificate.json"), certificate.milliseconds
        if {"dense", "exported"} <= times.keys():
            rows.append(_line(f"time, exported as {name}", times["dense"], times["exported"], _ms))
    return Table(("one image", "dense, float", "this run", "share"), rows, "lrrr")


def _line(title: str, dense: float, now: float, told: Callable[[float], str]) -> list[str]:
    return [title, told(dense), told(now), f"{100 * now / dense:.3g} %" if dense else "-"]


def _bytes(value: float) -> str:
    return short(value, "B")


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def environment_facts(record: RunRecord) -> Table:
    """Where it was trained."""
    found = record.facts.get("environment")
    return Table(
        ("", ""), [[str(name), str(value)] for name, value in found.items()] if isinstance(found, dict) else []
    )


def told_events(history: History) -> Iterator[str]:
    """When masks froze and quantizers started, in sentences."""
    froze = [event["step"] for event in history.events if event.get("frozen")]
    starts = [event for event in history.events if "bits" in event]
    if froze:
        yield f"{count_of(len(froze), 'mask')} froze {_between(froze)}."
    if starts:
        bits = ", ".join(map(str, sorted({event["bits"] for event in starts})))
        yield f"{count_of(len(starts), 'quantizer')} of {bits} bits started {_between([e['step'] for e in starts])}."
    if history.history and not froze and not starts:
        yield "No mask froze and no quantizer started that is known of."


def count_of(number: int, what: str) -> str:
    """``"1 mask"``, ``"12 masks"``."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def _between(steps: Sequence[Any]) -> str:
    first, last = min(steps), max(steps)
    return f"at step {first:,}" if first == last else f"from step {first:,} to step {last:,}"
