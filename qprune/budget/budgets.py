"""Budgets: how much of what a network may cost, as a share of the dense one or as a number."""

import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from qprune.errors import PlanError
from qprune.spelling import nearest
from qprune.tables import short

_THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@frozen
class Cost:
    """A kind of cost."""

    title: str  # in a table
    units: Mapping[str, float] = field(factory=_THOUSANDS.copy)  # what may stand behind a number, and how much it is of
    example: str = "10M"  # an absolute budget
    rounded: bool = False  # whether fewer bits cost less
    close: float = 0.98  # the share of a budget that is near enough; less of what is timed


# by the word of a budget
COSTS = {
    "macs": Cost("MACs"),
    "params": Cost("parameters"),
    "bytes": Cost("packed bytes", {f"{power}{unit}": size for unit in ("", "B") for power, size in _THOUSANDS.items()},
                  "100kB", rounded=True),
    "bops": Cost("bit operations", rounded=True),
    "latency": Cost("latency", {"s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6}, "2.5ms", close=0.95),
}  # fmt: skip

_NUMBER = re.compile(r"\s*((?:\d+(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)\s*(%|[a-zA-Z\u00b5]*)\s*")


@frozen
class Budget:
    """The most that a network may cost, of one kind."""

    cost: str  # a word of `COSTS`
    most: float  # MACs, parameters, bytes, bit operations or seconds; or a share of the dense network's
    share: bool  # whether ``most`` is a share

    def limit(self, dense: float) -> float:
        """The most that it may cost, if the dense network costs ``dense``."""
        return self.most * dense if self.share else self.most

    def __str__(self) -> str:
        return f"{self.cost} = {100 * self.most:.4g} %" if self.share else f"{self.cost} = {told(self.cost, self.most)}"


def told(cost: str, value: float) -> str:
    """A cost for people: ``100 kB``, ``10 M``, ``2.5 ms``."""
    if cost == "latency":
        return f"{1e3 * value:.4g} ms"
    return short(value, "B" if cost == "bytes" else "")


def read_budgets(written: Mapping[str, float | str] | Sequence[str]) -> tuple[Budget, ...]:
    """Budgets as people write them.

    Args:
        written: ``{"macs": 0.25, "bytes": "100kB"}``, or ``["macs=0.25", "bytes=100kB"]``. A number up to 1, or one
            with ``%``, is a share of what the dense network costs; others are absolute, with k, M, G or T for
            thousands; a latency in ``s``, ``ms`` or ``us``.

    Raises:
        PlanError: for an unknown cost, a number that cannot be read or makes no sense, or no budget at all.

    Example:
        >>> read_budgets({"macs": 0.25, "bytes": "100kB"})[1]
        Budget(cost='bytes', most=100000.0, share=False)
    """
    pairs = list(written.items()) if isinstance(written, Mapping) else [_pair(text) for text in written]
    budgets = tuple(_budget(cost, value) for cost, value in pairs)
    if not budgets:
        raise PlanError("There is no budget: say what the network may cost, such as macs=0.25 or bytes=100kB.")
    twice = next((one.cost for i, one in enumerate(budgets) if one.cost in [b.cost for b in budgets[:i]]), None)
    if twice is not None:
        raise PlanError(f"There are two budgets of {twice}: leave out all but the smallest.")
    return budgets


def _pair(text: str) -> tuple[str, str]:
    cost, sign, value = text.partition("=")
    if not sign:
        raise PlanError(f'A budget is a cost and a number, such as macs=0.25; received "{text}".')
    return cost.strip(), value


def _budget(cost: str, value: float | str) -> Budget:
    if cost not in COSTS:
        raise PlanError(f'A budget is of {", ".join(COSTS)}; received "{cost}"{nearest(cost, COSTS)}.')
    match = _NUMBER.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None:
        raise _unreadable(cost, value)
    number, unit = float(match[1]), match[2]
    share = unit == "%" or (unit == "" and number <= 1)
    if not share and unit not in COSTS[cost].units:
        raise _unreadable(cost, value)
    number *= 0.01 if unit == "%" else 1.0 if share else COSTS[cost].units[unit]
    if number <= 0 or (share and number > 1):
        raise PlanError(f"A budget as a share of the dense network is greater than 0 and at most 1; received {value}.")
    return Budget(cost, number, share)


def _unreadable(cost: str, value: object) -> PlanError:
    example = f"{cost}={COSTS[cost].example} or {cost}=0.25"
    return PlanError(
        f"The budget of {cost} must be a number such as {example} (a share of the dense network's); received {value}."
    )
