"""Recipes are words: percent of channels, bits of weights and activations, or a search."""

import pytest

from qprune.errors import SpecError
from qprune.starting import Recipe


@pytest.mark.parametrize(
    ("word", "recipe"),
    [
        ("a75", Recipe(75)),
        ("w8a8", Recipe(None, 8, 8)),
        ("a50_w4a8", Recipe(50, 4, 8)),
        ("a50w4a8", Recipe(50, 4, 8)),
        ("budget", Recipe(searched=True)),
    ],
)
def test_words_and_what_they_mean(word: str, recipe: Recipe) -> None:
    assert Recipe.of(word) == recipe


def test_a_word_is_spelt_one_way() -> None:
    assert [Recipe.of(word).word for word in ("a75", "w8a8", "a50w4a8", "budget")] == [
        "a75", "w8a8", "a50_w4a8", "budget",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["", "_", "a7", "a75_", "_w8a8", "w9a8", "w1a4", "a75_w8", "small", "A75", "a75 w8a8"])
def test_another_word_is_refused_with_what_there_is(word: str) -> None:
    with pytest.raises(SpecError, match=r"a75, w8a8 \(bits from 2 to 8\), a75_w8a8; or it is budget") as error:
        Recipe.of(word)
    assert str(error.value).endswith(f'Received "{word}".')
