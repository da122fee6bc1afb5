"""Performance density: how much of a metric each unit of memory buys."""

import math


def merit(score: float | None, mode: str) -> float | None:
    """A score as a number that is better when larger: itself, or one over it where less is better.

    Args:
        score: of a network; None if it has none.
        mode: ``"max"`` if more of it is better, ``"min"`` if less.

    Returns:
        None where there is no such number.

    Source: the published experiments put one over the Fréchet distance.

    Example:
        >>> merit(0.75, "max"), merit(8.0, "min"), merit(float("nan"), "min")
        (0.75, 0.125, None)
    """
    if score is None or not math.isfinite(score) or (mode == "min" and score <= 0):
        return None
    return score if mode == "max" else 1 / score


def performance_density(metric: float, megabytes: float) -> float:
    """Metric per MB of what inference on one image has to hold, ``metric / megabytes``.

    Args:
        metric: a score, better when larger (accuracy as a share or in percent, as you like to read it).
        megabytes: ``(packed bytes of the kept weights + bytes of the output activations of convolutions and linear
            layers of one image, each counted once, at their bits) / 1e6``; `summarize` works it out.

    Raises:
        ValueError: if ``megabytes`` is not positive.

    Example:
        >>> performance_density(0.75, 1.5)
        0.5
    """
    if megabytes <= 0:
        raise ValueError(f"megabytes must be positive; received {megabytes!r}")
    return metric / megabytes


def performance_density_legacy(
    metric: float,
    *,
    weights: int,
    features: int,
    weight_bits: int = 32,
    feature_bits: int = 32,
    weight_sparsity: float = 0.0,
    feature_sparsity: float = 0.0,
) -> float:
    """Metric per Mbit as the published experiments computed it: kept for comparison with their numbers alone.

    The metric over ``(weights * weight_bits * (1 - weight_sparsity) + 2 * features * feature_bits * (1 -
    feature_sparsity)) / 1e6``. It differs from `performance_density` in four ways: bits for bytes; features are the
    outputs of convolutions, normalizations and linear layers, and count twice (the tool that counted them added a
    backward pass); one bit width for everything; and one sparsity for the whole network, although weights between two
    layers with half of their channels pruned fall to a quarter.

    Args:
        metric: a score, better when larger.
        weights: number of parameters of the dense network.
        features: output elements of convolutions, normalizations and linear layers for one image, counted once.
        weight_bits: bits of every weight.
        feature_bits: bits of every feature.
        weight_sparsity: share of weights dropped, in [0, 1).
        feature_sparsity: share of features dropped, in [0, 1).

    Raises:
        ValueError: if no weights and no features remain.

    Source: the calculator that accompanies Zhang, Colbert, Das (2022).

    Example:
        >>> performance_density_legacy(0.5, weights=1_000_000, features=0, weight_bits=4, weight_sparsity=0.75)
        0.5
    """
    bits = weights * weight_bits * (1 - weight_sparsity) + 2 * features * feature_bits * (1 - feature_sparsity)
    if bits <= 0:
        raise ValueError(f"weights and features that remain must take some bits; received {bits!r}")
    return metric / bits * 1e6
