"""How much to drop of each group, and how many bits to give it: by measurement, the same everywhere, or by chance."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
from attrs import field, frozen

from qprune.budget.budgets import COSTS, Budget, told
from qprune.budget.costs import Choice, Point
from qprune.budget.groups import Group
from qprune.budget.knapsack import choose_one_each
from qprune.budget.sensitivity import Curve
from qprune.errors import PlanError

LEVELS = 48  # of a group's channels that are tried
ROUNDS = 24  # of steps from one point to the next
CORRECTIONS = 8  # of the linear problem of one step

Array = np.ndarray[Any, np.dtype[Any]]
Costs = Callable[[Point], Mapping[str, float]]


@frozen(eq=False)
class Problem:
    """What may be chosen, what it costs and what it harms."""

    groups: tuple[Group, ...]  # those of the network
    prunable: frozenset[Group]  # those of them that can lose channels
    widths: tuple[int | None, ...]  # numbers of bits to choose from; ``(None,)`` leaves all in float
    costs: Costs  # what a network costs, as a function of what is chosen
    limits: Mapping[str, float]  # for each kind of cost the most
    least: float = 0.1  # share of its channels that each group keeps at least
    # what was measured of a group, once or several times; a group without harms nothing
    measured: Mapping[Group, Sequence[Curve]] = field(factory=dict)

    def most_dropped(self, group: Group) -> int:
        """How many channels a group can lose: one stays."""
        if group not in self.prunable:
            return 0
        return group.whole_steps(min((1 - self.least) * group.channels, group.channels - group.step))

    def options(self, group: Group) -> list[Choice]:
        """All that may be chosen of a group, in rising order of dropped channels."""
        most = self.most_dropped(group)
        counts = sorted({group.whole_steps(round(count)) for count in np.linspace(0, most, min(most + 1, LEVELS))})
        return [Choice(count, width) for count in counts for width in self.widths]

    def harm(self, group: Group, choice: Choice) -> float:
        """How much more than nothing a choice alone moves the outputs: the mean over what was measured."""
        curves = self.measured.get(group, ())
        return float(np.mean([_harm(curve, group, choice) for curve in curves])) if curves else 0.0

    def total_harm(self, point: Point) -> float:
        """The sum over all groups."""
        return sum(self.harm(group, choice) for group, choice in point.items())

    def meets(self, point: Point) -> bool:
        """Whether no limit is exceeded."""
        costs = self.costs(point)
        return all(costs[kind] <= limit for kind, limit in self.limits.items())

    def evenly(self, ratio: float, width: int | None) -> dict[Group, Choice]:
        """The same share of the channels of each group, as far as it can."""
        return {
            group: Choice(min(group.whole_steps(ratio * group.channels), self.most_dropped(group)), width)
            for group in self.groups
        }

    def smallest(self) -> dict[Group, Choice]:
        """The least that can be kept, with the fewest bits."""
        return self.evenly(1.0, min(self.widths, key=lambda width: width or 32))


def _harm(curve: Curve, group: Group, choice: Choice) -> float:
    harm = _on_line(curve.ratios, choice.dropped / group.channels) if curve.ratios else 0.0
    return harm + (curve.bits[choice.bits] if choice.bits is not None else 0.0)


def _on_line(measured: Mapping[float, float], ratio: float) -> float:
    """What is added from ratio 0 on: between measured ratios on a straight line, beyond the last as steep as before it.

    Dropping more never counts as less harm, which a measurement on few images may say.
    """
    ratios, values = (np.array(column) for column in zip(*sorted(({0.0: 0.0} | dict(measured)).items()), strict=True))
    values = np.maximum.accumulate(values - values[0])
    if ratio > ratios[-1] and len(ratios) > 1:
        return float(values[-1] + (ratio - ratios[-1]) * (values[-1] - values[-2]) / (ratios[-1] - ratios[-2]))
    return float(np.interp(ratio, ratios, values))


class Method(ABC):
    """A way to choose."""

    measures = False  # whether it needs to know what each choice harms

    @abstractmethod
    def choose(self, problem: Problem) -> dict[Group, Choice]:
        """A choice for each group that meets all limits, which can be met."""


@frozen
class Uniform(Method):
    """The same share of the channels everywhere, and the same bits: the smallest share that meets the budget.

    Of several numbers of bits the one with the least sum of what was measured; if nothing was, the most.
    """

    def choose(self, problem: Problem) -> dict[Group, Choice]:
        """A choice for each group that meets all limits."""
        found = [point for width in problem.widths if (point := _first(problem, self._rising(problem, width)))]
        return min(found or [problem.smallest()], key=problem.total_harm)

    @staticmethod
    def _rising(problem: Problem, width: int | None) -> list[dict[Group, Choice]]:
        return [problem.evenly(ratio, width) for ratio in np.linspace(0, 1, 401)]


@frozen
class ByChance(Method):
    """Shares of the channels drawn by chance, each up to the one at which all together meet the budget; so the bits."""

    seed: int = 0

    def choose(self, problem: Problem) -> dict[Group, Choice]:
        """A choice for each group that meets all limits."""
        random = Random(self.seed)
        for _ in range(100):
            drawn = {group: (random.random(), random.choice(problem.widths)) for group in problem.groups}
            if found := _first(problem, [self._scaled(problem, drawn, scale) for scale in np.linspace(0, 4, 401)]):
                return found
        return problem.smallest()

    @staticmethod
    def _scaled(problem: Problem, drawn: Mapping[Group, Any], scale: float) -> dict[Group, Choice]:
        return {
            group: Choice(min(group.whole_steps(scale * share * group.channels), problem.most_dropped(group)), width)
            for group, (share, width) in drawn.items()
        }


@frozen
class BySensitivity(Method):
    """The least sum of measured divergences: a multiple-choice knapsack.

    What a layer costs is a product of what it and its neighbours keep, so the problem is solved as a linear one at the
    present point, near to it, and again from there, until that finds nothing better. What costs more than the linear
    problem says is taken off its limit: otherwise no step but the smallest ones would meet the budget.
    """

    measures = True

    def choose(self, problem: Problem) -> dict[Group, Choice]:
        """A choice for each group that meets all limits."""
        point = Uniform().choose(problem)
        best, radius = problem.total_harm(point), 0.5
        for _ in range(ROUNDS):
            found = _solved_near(problem, point, radius)
            if found is not None and problem.total_harm(found) < best - 1e-12 and problem.meets(found):
                point, best = found, problem.total_harm(found)
            elif radius < 0.02:
                break
            else:
                radius /= 2
        return _filled(problem, point)


def _first(problem: Problem, rising: Sequence[dict[Group, Choice]]) -> dict[Group, Choice] | None:
    """The first of rising choices that meets the limits, by bisection; None if the last does not."""
    low, high = 0, len(rising) - 1
    if not problem.meets(rising[high]):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if problem.meets(rising[middle]) else (middle + 1, high)
    return rising[high]


def _solved_near(problem: Problem, point: Point, radius: float) -> dict[Group, Choice] | None:
    """The best point within the limits, by costs that are linear around the present one, at most ``radius`` away."""
    present = problem.costs(point)
    near = {group: [choice, *_near(problem, group, choice, radius)] for group, choice in point.items()}
    values = [np.array([problem.harm(group, option) for option in options]) for group, options in near.items()]
    costs = _changes(problem, point, near)
    room = {kind: limit - present[kind] for kind, limit in problem.limits.items()}
    for _ in range(CORRECTIONS):
        chosen = choose_one_each(values, costs, room)
        if chosen is None:
            return None
        found = {group: options[index] for (group, options), index in zip(near.items(), chosen, strict=True)}
        if problem.meets(found):
            return found
        really = problem.costs(found)
        room = {kind: room[kind] - max(0.0, really[kind] - limit) for kind, limit in problem.limits.items()}
    return None


def _changes(problem: Problem, point: Point, near: Mapping[Group, Sequence[Choice]]) -> dict[str, list[Array]]:
    """For each kind of cost and each group, by how much each option alone would change it."""
    present = problem.costs(point)
    found: dict[str, list[Array]] = {kind: [] for kind in problem.limits}
    for group, options in near.items():
        each = [problem.costs({**point, group: option}) for option in options]
        for kind in found:
            found[kind].append(np.array([cost[kind] - present[kind] for cost in each]))
    return found


def _near(problem: Problem, group: Group, present: Choice, radius: float) -> Iterator[Choice]:
    for option in problem.options(group):
        if option != present and abs(option.dropped - present.dropped) <= max(group.step, radius * group.channels):
            yield option


def _filled(problem: Problem, point: dict[Group, Choice]) -> dict[Group, Choice]:
    """Give back the fewest channels while there is room, where most harm goes for the share of a budget it takes."""
    while True:
        present = problem.costs(point)
        gains = {}
        for group, choice in point.items():
            if choice.dropped:
                more = Choice(choice.dropped - group.step, choice.bits)
                costs = problem.costs({**point, group: more})
                if all(costs[kind] <= limit for kind, limit in problem.limits.items()):
                    share = max((costs[kind] - present[kind]) / limit for kind, limit in problem.limits.items())
                    gains[group] = (problem.harm(group, choice) - problem.harm(group, more)) / max(share, 1e-12)
        if not gains:
            return point
        group = max(gains, key=lambda group: gains[group])
        point = {**point, group: Choice(point[group].dropped - group.step, point[group].bits)}


def check_limits(
    problem: Problem, budgets: Sequence[Budget], dense: Mapping[str, float], least: Mapping[str, float]
) -> None:
    """Refuse budgets that cannot be met, with the nearest that can, or that the dense network meets already."""
    for budget in budgets:
        kind, limit = budget.cost, problem.limits[budget.cost]
        if least[kind] > limit:
            nearest = f"{told(kind, least[kind])}, {100 * least[kind] / dense[kind]:.3g} % of the dense network's"
            fewest = min(problem.widths, key=lambda width: width or 32)
            how = f" at {fewest} bits" if fewest is not None else ""
            other = ", or give fewer bits" if COSTS[kind].rounded else ""
            raise PlanError(
                f"The budget {budget} cannot be met: with {100 * problem.least:.3g} % of the channels of each group"
                f"{how} the network costs {nearest}. Ask for that or more{other}."
            )
    if all(dense[budget.cost] <= problem.limits[budget.cost] for budget in budgets):
        costs = ", ".join(f"{budget.cost} = {told(budget.cost, dense[budget.cost])}" for budget in budgets)
        raise PlanError(f"The dense network meets the budget already: it costs {costs}. Ask for less.")


# by the word of a search
METHODS: dict[str, Callable[[int], Method]] = {
    "sensitivity": lambda seed: BySensitivity(),
    "uniform": lambda seed: Uniform(),
    "random": ByChance,
}
