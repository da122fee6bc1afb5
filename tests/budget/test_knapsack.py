"""One option per group: the optimum that trying all combinations finds."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from qprune.budget.knapsack import choose_one_each


def by_trying_all(values, costs, limits):
    best = None
    for choice in product(*(range(len(options)) for options in values)):
        fits = all(sum(each[i] for each, i in zip(costs[kind], choice, strict=True)) <= limits[kind] for kind in limits)
        total = sum(each[i] for each, i in zip(values, choice, strict=True))
        if fits and (best is None or total < best):
            best = total
    return best


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_trying_all_finds(seed):
    drawn = np.random.default_rng(seed)
    sizes = drawn.integers(1, 6, size=5)
    values = [drawn.random(size) for size in sizes]
    costs = {
        "macs": [1e6 * (drawn.random(size) - 0.3) for size in sizes],
        "bytes": [drawn.random(size) for size in sizes],
    }
    limits = {"macs": 4e5, "bytes": 2.2}
    best, chosen = by_trying_all(values, costs, limits), choose_one_each(values, costs, limits)
    if best is None:
        assert chosen is None
        return
    assert sum(each[i] for each, i in zip(values, chosen, strict=True)) == pytest.approx(best, rel=1e-6)
    for kind, limit in limits.items():
        assert sum(each[i] for each, i in zip(costs[kind], chosen, strict=True)) <= limit * (1 + 1e-6)


def test_where_nothing_fits_there_is_no_choice():
    assert choose_one_each([np.array([0.0, 1.0])], {"macs": [np.array([5.0, 3.0])]}, {"macs": 2.0}) is None


def test_a_share_of_a_huge_cost_is_as_exact_as_one_of_a_small_one():
    values, costs = [np.array([0.0, 1.0]), np.array([0.0, 0.5])], [np.array([0.0, -1e12]), np.array([0.0, -2e12])]
    assert choose_one_each(values, {"bops": costs}, {"bops": -1.5e12}) == [0, 1]


def test_the_solver_prints_nothing():
    program = """
import numpy as np
from qprune.budget.knapsack import choose_one_each
drawn = np.random.default_rng(33)  # of these, HiGHS 1.12 printed a line of its own
sizes = drawn.integers(1, 9, size=12)
values = [np.sort(drawn.random(size)) for size in sizes]
costs = [np.sort(drawn.random(size))[::-1] for size in sizes]
print("before")
assert choose_one_each(values, {"macs": costs}, {"macs": 1.5 * sum(each.min() for each in costs)})
print("after")
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "before\nafter\n"
