"""The picture of which classes are taken for which."""

import pytest

from qprune.figures import plot_confusion


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_counts_stand_where_they_belong_and_zeros_are_left_out():
    (axes,) = plot_confusion([[9, 1], [0, 10]], ["cat", "dog"]).axes
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "9"), ((1, 0), "1"), ((1, 1), "10"),
    ]  # fmt: skip


def test_shades_are_shares_of_the_true_class():
    (axes,) = plot_confusion([[3, 1], [0, 10], [0, 0]][:2], ["cat", "dog"]).axes
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_long_counts_are_written_as_shares():
    (axes,) = plot_confusion([[90_000, 10_000], [20, 980_000]], ["sky", "road"]).axes
    assert texts(axes) == ["90 %", "10 %", "100 %"]


def test_a_class_that_is_never_seen_has_no_share():
    (axes,) = plot_confusion([[0, 0], [1, 1]], ["cat", "dog"]).axes
    assert axes.images[0].get_array().tolist()[0] == [0.0, 0.0]


@pytest.mark.parametrize("many", [21, 100])
def test_of_many_classes_some_are_named_and_none_is_counted(many):
    (axes,) = plot_confusion([[1] * many] * many, [f"class {index}" for index in range(many)]).axes
    assert not axes.texts
    assert len(axes.get_xticklabels()) == (21 if many == 21 else 34)


def test_long_names_are_cut():
    (axes,) = plot_confusion([[1, 0], [0, 1]], ["x" * 60, "\x07"]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x" * 23 + "…", r"\x07"]
