import pytest

from qprune.spelling import closest, nearest, similar


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [("basline", ["baseline", "a75"], "baseline"), ("relu", ["Conv2d", "ReLU"], "ReLU"), ("qqq", ["baseline"], ""),
     ("", ["baseline"], ""), ("x", [], ""), (32, ["x32", "x64"], "x32")],
)  # fmt: skip
def test_the_closest_word_is_the_one_that_a_reader_would_pick(word, known, found):
    assert closest(word, known) == found
    assert nearest(word, known) == (f'; nearest: "{found}"' if found else "")


def test_at_most_three_are_similar_the_most_similar_first():
    assert similar("conv2", ["conv", "conv1", "conv2d", "conv3d", "linear"]) == ["conv2d", "conv", "conv1"]


def test_python_quotes_where_python_is_spoken():
    assert nearest("digit", ["digits", "cifar10"], repr) == "; nearest: 'digits'"
