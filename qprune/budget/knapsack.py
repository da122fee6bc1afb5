"""`choose_one_each`: one option per group with the least sum of values under limits, solved exactly."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qprune.budget.quiet import quiet

Array = np.ndarray[Any, np.dtype[Any]]


def choose_one_each(
    values: Sequence[Array], costs: Mapping[str, Sequence[Array]], limits: Mapping[str, float]
) -> list[int] | None:
    """The multiple-choice knapsack: of each group one option, so that no limit is exceeded and the sum is least.

    Values and costs (by kind, perhaps negative) have for each group an array with one number per option. It is solved
    as an integer linear program by `scipy.optimize.milp` (HiGHS), to its optimum. Gives the index of the option of each
    group; None if no choice meets the limits.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes as long to import as a small search
    from scipy.sparse import csr_array

    sizes = [len(options) for options in values]
    ends = np.cumsum(sizes)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    one_each = csr_array((np.ones(ends[-1]), (rows, np.arange(ends[-1]))))
    constraints = [LinearConstraint(one_each, 1, 1)]
    for kind, limit in limits.items():
        each = np.concatenate(costs[kind])
        scale = max(abs(each).max(), abs(limit), 1e-30)  # solvers have absolute tolerances
        constraints.append(LinearConstraint(csr_array(each[None] / scale), -np.inf, limit / scale))
    problem: dict[str, Any] = {"integrality": 1, "bounds": Bounds(0, 1), "constraints": constraints}
    with quiet():
        found = milp(np.concatenate(values), **problem, options={"mip_rel_gap": 0})
    if found.x is None:
        return None
    return [int(part.argmax()) for part in np.split(found.x, ends[:-1])]
