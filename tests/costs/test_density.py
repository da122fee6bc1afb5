import math

import pytest

from qprune.costs import merit, performance_density, performance_density_legacy


def test_density_is_metric_per_megabyte():
    assert performance_density(90.0, 4.0) == 22.5


def test_density_needs_megabytes():
    with pytest.raises(ValueError, match=r"megabytes must be positive; received 0"):
        performance_density(0.9, 0)


def test_legacy_density_counts_features_twice_and_in_bits():
    bits = 1000 * 4 * 0.25 + 2 * 500 * 8 * 0.5
    density = performance_density_legacy(
        70.0, weights=1000, features=500, weight_bits=4, feature_bits=8, weight_sparsity=0.75, feature_sparsity=0.5
    )
    assert density == pytest.approx(70.0 / (bits / 1e6))


def test_legacy_density_of_the_known_mobilenet_features():
    # 13.80 MB of float features appear as 27.60 MB in the published calculator
    density = performance_density_legacy(1.0, weights=0, features=3_450_000)
    assert density == pytest.approx(1 / (27.60 * 8))


def test_legacy_density_needs_something_that_remains():
    with pytest.raises(ValueError, match=r"must take some bits; received 0"):
        performance_density_legacy(0.9, weights=0, features=0)


@pytest.mark.parametrize(
    ("score", "mode", "expected"),
    [(0.75, "max", 0.75), (8.0, "min", 0.125), (0.0, "min", None), (math.nan, "max", None), (None, "max", None)],
)
def test_merit_is_better_when_larger(score, mode, expected):
    assert merit(score, mode) == expected
