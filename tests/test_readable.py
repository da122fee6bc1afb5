"""Scores, numbers and times as people write them."""

import math

import pytest

from qprune.readable import duration_text, number_text, score_text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.9925, "99.25 %"),
        ("val_top5", 1.0, "100.00 %"),
        ("iou_sky", 0.0, "0.00 %"),
        ("val_iou_sky", 0.5, "50.00 %"),
        ("loss", 0.0123456, "0.0123"),
        ("val_loss", 0.5, "0.500"),
        ("accuracy", 99.25, "99.2"),  # somebody's own metric of that name, in percent already
        ("frechet_fixed44", 0.25, "0.250"),
        ("accuracy", math.nan, "nan"),
    ],
)
def test_shares_are_in_percent_and_others_have_three_digits(name: str, value: float, text: str) -> None:
    assert score_text(name, value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.2e-4, "1.2e-04"), (0.001, "0.00100"), (-12.345, "-12.3"), (123.4, "123"), (12345.6, "12,346"),
     (math.inf, "inf"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers_do_not_read_as_zero_and_show_no_noise(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (200, "3 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_times_have_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
