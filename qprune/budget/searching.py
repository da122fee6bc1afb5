"""`search_network`: measure, choose, measure again half-way, choose once more, and check what the result costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from qprune.budget.budgets import Budget
from qprune.budget.changing import fitted, problems_of
from qprune.budget.choosing import METHODS, Method, Problem, check_limits
from qprune.budget.costs import Choice, CostModel, Point, carried_out, counted, model_costs
from qprune.budget.found import Found
from qprune.budget.groups import Group, find_groups
from qprune.budget.measuring import RATIOS, check_dense, measure_sensitivity
from qprune.budget.sensitivity import Curve, Sensitivity
from qprune.errors import PlanError
from qprune.spelling import nearest
from qprune.zoo import deployed

CLOSE = 0.98  # of a budget is near enough
ROUNDS = 8  # of choosing again where the model of costs is not the ledger
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
    is dropped, and the least sum of the means of both is chosen. Costs are those of the shrunk network, by its ledger.

    Args:
        net: a trained network without masks and quantizers; it is not touched.
        batches: a few hundred images.
        budgets: what it may cost.
        compare: what its outputs are, a word of `DIVERGENCES`.
        bits: numbers of bits to choose from; none leave all in float.
        method: a word of `METHODS`.
        ratios: shares of channels that are measured.
        importance: how the channels of a group are ranked.
        least: share of its channels that each group keeps, in [0, 1); one channel stays in any case.
        seed: of what is drawn by chance: the method ``"random"``, and random ranks.
        file: where measurements are kept.
        verbose: as for `measure_sensitivity`.
        out: as for `measure_sensitivity`.

    Raises:
        PlanError: for an unknown method, and for budgets that cannot be met or are met already.
    """
    if method not in METHODS:
        raise PlanError(f'method must be one of {", ".join(METHODS)}; received "{method}"{nearest(method, METHODS)}.')
    if not 0 <= least < 1:
        raise PlanError(
            f"least is the share of its channels that each group keeps, from 0 to less than 1; received {least}."
        )
    check_dense(net, ratios, bits, importance)
    part, chosen_by = deployed(net), METHODS[method](seed)
    work = _Work.of(part, batches[0][:1])
    problem = work.problem(budgets, tuple(bits) or (None,), least)
    check_limits(problem, budgets, work.dense)
    if chosen_by.measures:
        settings: dict[str, Any] = {"compare": compare, "bits": bits, "importance": importance, "seed": seed}
        settings |= {"file": file, "verbose": verbose, "out": out}
        alone = measure_sensitivity(part, batches, ratios=ratios, **settings)
        problem = evolve(problem, measured=_of_groups(alone))
        half = _half(work.choose(chosen_by, problem), problem)
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
        prefix=_prefix(net, part),
        notes=tuple(f"{group.title} is not pruned: {problem}" for group, problem in work.problems.items()),
    )


def _of_groups(*measurements: Sensitivity) -> dict[Group, list[Curve]]:
    groups = [curve.group for curve in measurements[0].curves]
    return dict(zip(groups, map(list, zip(*(found.curves for found in measurements), strict=True)), strict=True))


def _half(choices: Mapping[Group, Choice], problem: Problem) -> dict[Group, float]:
    """Half of what was chosen, for all groups that can lose channels."""
    return {group: choices[group].dropped / group.channels / 2 for group in problem.groups if group in problem.prunable}


def _prefix(net: nn.Module, part: nn.Module) -> str:
    path = next(name for name, module in net.named_modules() if module is part)
    return f"{path}." if path else ""


@frozen(eq=False)
class _Work:
    """A network that can be asked what it costs with channels dropped and with bits."""

    fitted: nn.Module
    example: Tensor
    model: CostModel
    problems: Mapping[Group, str]  # of groups that cannot lose channels, although they have members
    dense: Mapping[str, float]

    @classmethod
    def of(cls, part: nn.Module, example: Tensor) -> "_Work":
        groups = find_groups(part, example)
        problems = problems_of(part, example, groups)
        net = fitted(part, example, [group for group in groups if group not in problems], groups)
        return cls(net, example, model_costs(net, example, groups), problems, counted(net, example))

    def problem(self, budgets: Sequence[Budget], widths: tuple[int | None, ...], least: float) -> Problem:
        prunable = frozenset(group for group in self.model.groups if group.members and group not in self.problems)
        limits = {budget.cost: budget.limit(self.dense[budget.cost]) for budget in budgets}
        return Problem(self.model.groups, prunable, widths, self.model.costs, limits, least)

    def counted(self, choices: Point) -> dict[str, float]:
        return counted(carried_out(self.fitted, choices), self.example)

    def choose(self, method: Method, problem: Problem) -> dict[Group, Choice]:
        """What a method chooses, so that the ledger of the network meets the limits and not the model of it alone."""
        limits, tight, best = problem.limits, dict(problem.limits), None
        for _ in range(ROUNDS):
            choices = method.choose(evolve(problem, limits=tight))
            costs, modelled = self.counted(choices), problem.costs(choices)
            used = {kind: costs[kind] / limit for kind, limit in limits.items()}
            if max(used.values()) <= 1:
                best = choices
                if max(used.values()) >= CLOSE:
                    break
            tight = {
                kind: limit * min(1.0, 0.9999 / used[kind]) * modelled[kind] / costs[kind]
                for kind, limit in limits.items()
            }
        return best or problem.smallest()
