import numpy as np

from qprune.data.seeds import mix, permutation, stratified_order


def test_hash_is_the_published_splitmix64_sequence():
    assert mix(0).tolist() == [0xE220A8397B1DCDAF]  # first output of SplitMix64 from state 0


def test_hash_takes_numbers_and_arrays_alike():
    assert mix(3, 5, [7, 11]).tolist() == [int(mix(3, 5, 7)[0]), int(mix(3, 5, 11)[0])]


def test_hash_depends_on_the_order_of_its_numbers():
    assert mix(1, 2) != mix(2, 1)


def test_hash_takes_negative_and_huge_seeds():
    assert mix(-1) == mix(2**64 - 1) != mix(2**65)


def test_permutation_never_changes():
    assert permutation(7, 3, 11).tolist() == [5, 3, 0, 2, 6, 4, 1]


def test_permutation_holds_every_index_once():
    assert sorted(permutation(101, 5).tolist()) == list(range(101))


def test_permutations_are_uniform_over_seeds():
    first = np.array([permutation(5, seed)[0] for seed in range(2000)])
    assert (abs(np.bincount(first) - 400) < 80).all()  # 4.5 standard deviations


def test_every_stretch_of_a_stratified_order_holds_classes_in_proportion():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = stratified_order(labels, 4)
    assert sorted(order.tolist()) == list(range(100))
    for first in range(0, 100, 20):
        counts = np.bincount(labels[order[first : first + 20]], minlength=3)
        assert abs(counts - [12, 6, 2]).max() <= 2


def test_stratified_order_depends_on_its_seed():
    labels = np.repeat([0, 1], 20)
    assert stratified_order(labels, 1).tolist() != stratified_order(labels, 2).tolist()
