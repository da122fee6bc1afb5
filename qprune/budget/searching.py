"""`search_network`: measure, choose, measure again half-way, choose once more, and check what the result costs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from qprune.budget.budgets import COSTS, Budget, told
from qprune.budget.changing import fitted, problems_of
from qprune.budget.choosing import METHODS, Method, Problem, check_limits
from qprune.budget.costs import Choice, CostModel, Point, carried_out, counted, model_costs
from qprune.budget.found import Found
from qprune.budget.groups import Group, find_groups
from qprune.budget.latency import Latency, LatencyTable
from qprune.budget.measuring import RATIOS, check_dense, measure_sensitivity
from qprune.budget.sensitivity import Curve, Sensitivity
from qprune.calibration import calibrate
from qprune.errors import ExportError, PlanError
from qprune.spelling import nearest
from qprune.zoo import deployed, deployed_prefix

ROUNDS = 8  # of choosing again where the model of costs is not the ledger, or not the file
Batches = Sequence[Tensor]


@torch.no_grad()
def search_network(
    net: nn.Module,
    batches: Batches,
    budgets: Sequence[Budget],
    *,
    compare: str,
    bits: Sequence[int] = (),
    method: str = "sensitivity",
    ratios: Sequence[float] = RATIOS,
    importance: str = "activation-l1",
    least: float = 0.1,
    seed: int = 0,
    file: Path | None = None,
    verbose: str | int = "auto",
    out: TextIO | None = None,
) -> Found:
    """Find which channels to drop and how many bits to use, so that a network meets budgets and changes least.

    What each group of channels can spare is measured alone, see `measure_sensitivity`, and the least sum is chosen.
    Since what single changes do does not add up at high ratios, it is measured again in a network of which half of that
    is dropped, and the least sum of the means of both is chosen. Costs are those of the shrunk network, by its ledger;
    latency is what its exported file takes, estimated from a table of layers that is made first.

    What it is given, and refuses, is as for `qprune.search`.
    """
    if method not in METHODS:
        raise PlanError(f'method must be one of {", ".join(METHODS)}; received "{method}"{nearest(method, METHODS)}.')
    if not 0 <= least < 1:
        raise PlanError(
            f"least is the share of its channels that each group keeps, from 0 to less than 1; received {least}."
        )
    check_dense(net, ratios, bits, importance)
    part, chosen_by, widths = deployed(net), METHODS[method](seed), tuple(bits) or (None,)
    work = _Work.of(part, batches[0][:1])
    if any(budget.cost == "latency" for budget in budgets):
        work = work.timed(widths[0], file.with_name("latency.json") if file else None)
    problem = work.problem(budgets, widths, least)
    check_limits(problem, budgets, work.dense, work.counted(problem.smallest()))
    work.prepare(problem, verbose, out)
    if chosen_by.measures:
        settings: dict[str, Any] = {"compare": compare, "bits": bits, "importance": importance, "seed": seed}
        settings |= {"file": file, "verbose": verbose, "out": out}
        alone = measure_sensitivity(part, batches, ratios=ratios, **settings)
        problem = evolve(problem, measured=_of_groups(alone))
        half = _half(chosen_by.choose(problem), problem)
        # there something is lost already, so what nothing more of a group adds is measured, too
        half_way = measure_sensitivity(part, batches, ratios=(0.0, *ratios), around=half, **settings)
        problem = evolve(problem, measured=_of_groups(alone, half_way))
    choices = work.choose(chosen_by, problem)
    return Found(
        choices,
        {group: problem.harm(group, choice) for group, choice in choices.items()} if problem.measured else {},
        method,
        tuple(budgets),
        work.counted(choices),
        work.dense,
        importance,
        prefix=deployed_prefix(net),
        notes=tuple(work.notes(choices, budgets)),
    )


def _of_groups(*measurements: Sensitivity) -> dict[Group, list[Curve]]:
    groups = [curve.group for curve in measurements[0].curves]
    return dict(zip(groups, map(list, zip(*(found.curves for found in measurements), strict=True)), strict=True))


def _half(choices: Mapping[Group, Choice], problem: Problem) -> dict[Group, float]:
    """Half of what was chosen, for all groups that can lose channels."""
    return {group: choices[group].dropped / group.channels / 2 for group in problem.groups if group in problem.prunable}


@frozen(eq=False)
class _Work:
    """A network that can be asked what it costs with channels dropped and with bits."""

    fitted: nn.Module
    example: Tensor
    model: CostModel
    problems: Mapping[Group, str]  # of groups that cannot lose channels, although they have members
    latency: Latency | None = None
    _counted: dict[tuple[Any, ...], dict[str, float]] = field(factory=dict, init=False)

    @classmethod
    def of(cls, part: nn.Module, example: Tensor) -> "_Work":
        groups = find_groups(part, example)
        problems = problems_of(part, example, groups)
        net = fitted(part, example, [group for group in groups if group not in problems], groups)
        return cls(net, example, model_costs(net, example, groups), problems)

    def timed(self, width: int | None, file: Path | None) -> "_Work":
        """The same that can be asked for its latency, too, with such bits."""
        net = carried_out(self.fitted, self._whole(width))
        with _of_the_file():
            return evolve(self, latency=Latency(net.cpu(), self.example.cpu(), LatencyTable(file)))

    def prepare(self, problem: Problem, verbose: str | int, out: TextIO | None) -> None:
        """Fill the table of latency, and tell it what the largest file and the smallest take."""
        if self.latency is not None:
            self.latency.prepare(least=problem.least, verbose=verbose, out=out)
            for point in (self._whole(problem.widths[0]), problem.smallest()):
                self.latency.learn(self.model.layers(point), self.counted(point)["latency"])

    def problem(self, budgets: Sequence[Budget], widths: tuple[int | None, ...], least: float) -> Problem:
        prunable = frozenset(group for group in self.model.groups if group.members and group not in self.problems)
        limits = {budget.cost: budget.limit(self.dense[budget.cost]) for budget in budgets}
        return Problem(self.model.groups, prunable, widths, self.costs, limits, least)

    @property
    def dense(self) -> dict[str, float]:
        return self.counted(self._whole(None))

    def _whole(self, width: int | None) -> dict[Group, Choice]:
        return dict.fromkeys(self.model.groups, Choice(bits=width))

    def costs(self, point: Point) -> dict[str, float]:
        """By the model, and the table."""
        costs = self.model.costs(point)
        if self.latency is not None:
            costs["latency"] = self.latency.seconds(self.model.layers(point))
        return costs

    def counted(self, point: Point) -> dict[str, float]:
        """By the ledger, and the exported file; the same point has one answer."""
        known = tuple(point.items())
        if known not in self._counted:
            net = carried_out(self.fitted, point)
            self._counted[known] = counted(net, self.example)
            if self.latency is not None:
                if any(choice.bits is not None for choice in point.values()):
                    calibrate(net, [self.example])  # ranges do not matter, and a file needs some
                with _of_the_file():
                    self._counted[known]["latency"] = self.latency.measure(net.cpu())
        return self._counted[known]

    def choose(self, method: Method, problem: Problem) -> dict[Group, Choice]:
        """What a method chooses, so that ledger and file of the network meet the limits, and not the model alone."""
        limits, tight = problem.limits, dict(problem.limits)
        tried: list[dict[Group, Choice]] = []
        for _ in range(ROUNDS):
            choices = method.choose(evolve(problem, limits=tight))
            if choices in tried:
                break
            tried.append(choices)
            costs, modelled = self.counted(choices), problem.costs(choices)
            used = {kind: costs[kind] / limit for kind, limit in limits.items()}
            if max(used.values()) <= 1 and any(share >= COSTS[kind].close for kind, share in used.items()):
                break
            tight = {
                kind: limit * min(1.0, 0.9999 / used[kind]) * modelled[kind] / costs[kind]
                for kind, limit in limits.items()
            }
        return max([*tried, problem.smallest()], key=lambda point: self._nearness(point, limits))

    def _nearness(self, point: Point, limits: Mapping[str, float]) -> tuple[bool, float]:
        """Greater for what meets the limits, and for what comes nearer to them."""
        used = max(self.counted(point)[kind] / limit for kind, limit in limits.items())
        return used <= 1, -abs(used - 1)

    def notes(self, point: Point, budgets: Sequence[Budget]) -> Iterator[str]:
        """Sentences about what was found."""
        yield from (f"{group.title} is not pruned: {problem}" for group, problem in self.problems.items())
        costs = self.counted(point)
        for budget in budgets:
            if costs[budget.cost] > budget.limit(self.dense[budget.cost]):
                nearest = told(budget.cost, costs[budget.cost])
                yield f"The budget {budget} is not met: the nearest that was found costs {nearest}."
        if self.latency is not None:
            seconds, expected = costs["latency"], self.costs(point)["latency"]
            yield (
                f"The exported file takes {told('latency', seconds)} on one thread of this machine; from the table of "
                f"its layers {told('latency', expected)} were expected ({100 * (expected / seconds - 1):+.0f} %)."
            )


@contextmanager
def _of_the_file() -> Iterator[None]:
    try:
        yield
    except ExportError as error:
        raise ExportError(f"A budget of latency is one of the exported file. {error}") from error
