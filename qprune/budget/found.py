"""`Found`: the network that a search found, as a table, a picture, and rules of a spec."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from qprune.budget.budgets import COSTS, Budget, told
from qprune.budget.costs import Choice
from qprune.budget.groups import Group
from qprune.budget.rules import Rule, prune_rules, quantize_rules
from qprune.budget.sensitivity import cut_title, few_digits, groups_of
from qprune.errors import SpecError
from qprune.figures import notebook_svg
from qprune.spec import Spec, read_spec, spec_to_toml
from qprune.tables import html_table, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEDULE = {"kind": "layerwise", "finish": "35%"}
BEFORE_THE_FIRST_STEP = {"kind": "one-shot", "at": 0}
STARTS = (0.4, 0.45)  # of the training: when quantizers of values start, and those of weights


@frozen
class Found:
    """Which channels and bits a search chose, and what the network costs then.

    It prints as a table of 80 columns.

    Attributes:
        choices: for each group of channels how many are dropped, and its bits.
        harm: for each group how much its choice alone adds to the divergence, the mean of what was measured; empty
            where nothing was.
        method: the word of the search.
        budgets: what was asked for.
        costs: what the network costs, by the words of budgets.
        dense: what the dense network costs.
        importance: how channels are ranked.
        prefix: where the part of the network that is used after training is, ``"generator."``.
        base: the spec of the dense run; None if a network was handed over.
        notes: sentences about what was found.

    Example:
        >>> group = Group("act.output", members=("act",), weights=("conv",), channels=16)
        >>> asked = (Budget("macs", 0.5, share=True),)
        >>> found = Found({group: Choice(8)}, {group: 0.25}, "sensitivity", asked, {"macs": 5e5}, {"macs": 1e6}, "l1")
        >>> found.prune()[0]["sparsity"]
        0.5
    """

    choices: Mapping[Group, Choice]
    harm: Mapping[Group, float]
    method: str
    budgets: tuple[Budget, ...]
    costs: Mapping[str, float]
    dense: Mapping[str, float]
    importance: str
    prefix: str = ""
    base: Spec | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def prune(self, schedule: Mapping[str, Any] = SCHEDULE, importance: str | None = None) -> list[Rule]:
        """The rules that drop channels, for a spec or for `qprune.swap`.

        Args:
            schedule: the table of one, without a sparsity.
            importance: how channels are ranked; by default as in the search.
        """
        dropped = {group: choice.dropped for group, choice in self.choices.items() if choice.dropped}
        return prune_rules(dropped, importance or self.importance, schedule, self.prefix)

    def quantize(self, starts: tuple[Any, Any] = (0, 0)) -> list[Rule]:
        """The rules that give bits; empty where none were asked for.

        Args:
            starts: when quantizers of values start, and those of weights, as durations.
        """
        bits = {group: choice.bits for group, choice in self.choices.items() if choice.bits is not None}
        return quantize_rules(bits, starts, self.prefix)

    def spec(self, name: str | None = None, scratch: bool = False) -> Spec:
        """The spec of a run that starts from the dense one and trains as long as that, at the same rates.

        Masks are chosen layer by layer within the first third; quantizers start when all are.

        Args:
            name: of the run; by default that of the dense run, with the budgets.
            scratch: start from new weights instead, with as many channels as were found from the first step on, and
                the dense network as the teacher.

        Raises:
            SpecError: for a name that cannot be, or if a network was searched that is of no run.
        """
        base = self.base
        if base is None:
            raise _no_run()
        table = base.to_dict()
        values, weights = (_after(base.train.length, share) for share in STARTS)
        about = f"Found for {self._asked()}, by {self.method}" + (", from scratch." if scratch else ".")
        found: dict[str, Any] = {"about": about, "quantize": self.quantize((values, weights))}
        train = table["train"] | {"shrink": "as-frozen"}
        if scratch:
            found |= {"prune": self.prune(BEFORE_THE_FIRST_STEP, "random")}
            train |= {"teacher": {"run": base.name, "weight": 0.5}}
        else:
            found |= {"prune": self.prune(), "init": base.name}
        return evolve(read_spec(table | {"train": train} | found), name=name or f"{base.name}_{self._word(scratch)}")

    def to_toml(self, name: str | None = None, scratch: bool = False) -> str:
        """The same as a TOML file, which `plan` shows and `fit` trains."""
        return spec_to_toml(self.spec(name, scratch))

    def _asked(self) -> str:
        return ", ".join(map(str, self.budgets))

    def _word(self, scratch: bool) -> str:
        words = [
            f"{budget.cost}{told(budget.cost, budget.most) if not budget.share else f'{100 * budget.most:.4g}'}"
            for budget in self.budgets
        ]
        words += [self.method] * (self.method != "sensitivity") + ["scratch"] * scratch
        return "_".join(words).replace(" ", "")

    def __str__(self) -> str:
        blocks = [f"Found for {self._asked()}, by {self.method}; channels ranked by {self.importance}."]
        blocks += [table(*self._groups(), right="lrrrr"), table(*self._costs(), right="lrrrr")]
        return "\n\n".join([*blocks, *(fill(note, 80) for note in self.notes)])

    def __repr__(self) -> str:
        return f"Found({self._asked()}, {groups_of(len(self.choices))})"

    def _repr_html_(self) -> str:
        """Tables and the figure for a notebook."""
        heading = f"<p>Found for <b>{escape(self._asked())}</b>, by {escape(self.method)}.</p>"
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        figure = notebook_svg(self.plot, "what is kept of each group of channels")
        return (
            heading
            + html_table(*self._costs(), right="lrrrr")
            + html_table(*self._groups(), right="lrrrr")
            + notes
            + figure
        )

    def _groups(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                cut_title(group.title),
                str(group.channels),
                str(group.channels - choice.dropped),
                "" if choice.bits is None else str(choice.bits),
                few_digits(self.harm[group]) if group in self.harm else "",
            ]
            for group, choice in self.choices.items()
        ]
        return ["channels", "of", "kept", "bits", "divergence"], rows

    def _costs(self) -> tuple[list[str], list[list[str]]]:
        limits = {budget.cost: told(budget.cost, budget.limit(self.dense[budget.cost])) for budget in self.budgets}
        rows = [
            [
                COSTS[kind].title,
                told(kind, self.dense[kind]),
                told(kind, cost),
                f"{100 * cost / self.dense[kind]:.3g} %",
                limits.get(kind, ""),
            ]
            for kind, cost in self.costs.items()
        ]
        return ["", "dense", "found", "of dense", "budget"], rows

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for JSON."""
        groups = [
            {"group": group.name, "channels": group.channels, "dropped": choice.dropped, "bits": choice.bits}
            for group, choice in self.choices.items()
        ]
        budgets = {budget.cost: budget.limit(self.dense[budget.cost]) for budget in self.budgets}
        costs = {"budgets": budgets, "costs": dict(self.costs), "dense": dict(self.dense)}
        return {"method": self.method, "importance": self.importance, "groups": groups} | costs

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw what is kept of each group, and its bits.

        Args:
            path: where to save the figure as well; its suffix is the format.

        Raises:
            QpruneError: if matplotlib is not installed.
        """
        from qprune.budget.plot import plot_found

        return plot_found(self, path)


def _after(length: Any, share: float) -> str:
    """This share of a length, in its own unit."""
    number, unit = (str(length), "it") if isinstance(length, int) else (length[:-2], length[-2:])
    part = float(number) * share
    return f"{part:.6g}ep" if unit == "ep" else f"{round(part)}it"


def _no_run() -> SpecError:
    return SpecError(
        "There is no spec: the network that was searched is of no run. Its rules are found.prune() and "
        "found.quantize(); write them into a spec of yours, or hand them to qprune.swap."
    )
