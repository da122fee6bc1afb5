"""Random numbers as a pure function of their place: no generator, so the same on every machine and in every version."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# One stream per use, so that the order of an epoch and the augmentation of its samples share no number.
AUGMENT, ORDER, SPLIT, PARTNER, STREET = 1, 2, 3, 4, 5


def mix(*numbers: ArrayLike) -> NDArray[np.uint64]:
    """Hash whole numbers, or arrays of them that broadcast, to 64 bits: one value per place.

    Each number is added to the hash of those before it and scrambled by the finalizer of SplitMix64 (Steele, Lea,
    Flood, 2014, "Fast splittable pseudorandom number generators"), so (1, 2) and (2, 1) differ.

    Args:
        numbers: whole numbers (taken modulo 2**64) or arrays of them.

    Returns:
        uint64 array, of at least one dimension.

    Example:
        >>> mix(0, 7, [1, 2, 3]).shape
        (3,)
    """
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = _scramble(key + _unsigned(number))
    return key


def permutation(size: int, *numbers: int) -> NDArray[np.int64]:
    """A shuffle of ``0 .. size - 1`` that depends on ``size`` and ``numbers`` only, such as a seed and an epoch.

    Example:
        >>> sorted(permutation(4, 0, 1).tolist())
        [0, 1, 2, 3]
    """
    return np.argsort(mix(*numbers, np.arange(size)), kind="stable")


def stratified_order(labels: ArrayLike, *numbers: int) -> NDArray[np.int64]:
    """A shuffle of which every stretch holds each class in proportion: each is shuffled, and spread over the whole."""
    labels = np.asarray(labels)
    shuffled = permutation(len(labels), *numbers)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _unsigned(number: Any) -> NDArray[np.uint64]:
    if isinstance(number, int):
        return np.array([number % 2**64], np.uint64)
    return np.atleast_1d(np.asarray(number)).astype(np.uint64)


def _scramble(key: NDArray[Any]) -> NDArray[np.uint64]:
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
