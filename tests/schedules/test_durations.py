import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qprune.schedules import to_steps
from qprune.schedules.durations import check_duration, check_finish, in_epochs


@pytest.mark.parametrize(
    ("duration", "epoch", "steps"),
    [
        ("0.5ep", 391, 196),  # 195.5: halves go to the even step
        ("0.125ep", 391, 49),
        ("0.025ep", 391, 10),
        ("0.05ep", 391, 20),
        ("36ep", 391, 14076),
        ("0.1ep", 2975, 298),
        ("0.5ep", 2975, 1488),
        ("0.1ep", 992, 99),
        ("0.5ep", 1, 1),  # 0.5 would be 0: at least one step
        ("0.5ep", 5, 2),  # 2.5
        ("0.5ep", 7, 4),  # 3.5
        ("0ep", 391, 1),
    ],
)
def test_epochs_become_steps_by_the_published_rounding(duration, epoch, steps):
    assert to_steps(duration, epoch) == steps


@given(st.integers(0, 10**9))
def test_steps_stay_exact(steps):
    assert to_steps(steps) == to_steps(f"{steps}it") == to_steps(steps, 391) == steps


@pytest.mark.parametrize(
    "wrong", [-1, 1.5, True, None, "", "5", "ep", "-1ep", "1.5it", "1 ep", "1EP", "1ep\n", ".5ep", "5.ep", "1e3it"]
)
def test_anything_else_is_no_duration(wrong):
    with pytest.raises(ValueError, match=r'^must be a duration such as "0.5ep", "800it" or 800; received ') as error:
        check_duration(wrong)
    assert str(error.value).endswith(repr(wrong))
    with pytest.raises(ValueError, match=r"must be a duration"):
        to_steps(wrong, 391)


def test_epochs_without_their_length_are_refused():
    sentence = r"^'2ep' counts epochs: pass steps_per_epoch, or give steps such as \"800it\"$"
    with pytest.raises(ValueError, match=sentence):
        to_steps("2ep")


@pytest.mark.parametrize("wrong", ["a", 0, -3, math.inf, math.nan, [5]])
def test_an_epoch_of_no_number_of_steps_is_refused(wrong):
    with pytest.raises(
        ValueError, match=r"^steps_per_epoch must be a number above 0, as len\(loader\) is; received "
    ) as e:
        to_steps("2ep", wrong)
    assert str(e.value).endswith(repr(wrong))
    assert to_steps("2ep", 3.5) == 7


def test_steps_are_written_in_epochs_where_their_length_is_known():
    assert in_epochs(196, 391) == "196 (0.50 ep)"
    assert in_epochs(196, None) == "196"
    assert in_epochs(math.inf, 391) == "inf"


@pytest.mark.parametrize(
    ("share", "steps", "step"),
    [
        ("35%", 1000, 350),
        ("100%", 391, 391),
        ("12.5%", 20, 2),  # 2.5: halves go to the even step
        ("0.1%", 391, 1),  # 0.391 would be 0: at least one step
        ("33.3%", 10**12, 333_000_000_000),  # exact where a float is not
    ],
)
def test_a_share_of_the_run_becomes_a_step_by_the_same_rounding(share, steps, step):
    assert to_steps(share, steps=steps) == to_steps(share, 391, steps) == step


def test_a_share_of_a_run_of_unknown_length_is_refused():
    sentence = (
        r"^'35%' is a share of the run, whose length is not known here: pass steps, its optimizer steps, or give a "
        r"duration such as \"7ep\" or \"800it\"$"
    )
    with pytest.raises(ValueError, match=sentence):
        to_steps("35%", 391)


@pytest.mark.parametrize(
    "wrong", [0, "0%", "0.0%", "0it", "0ep", "100.1%", "999%", "-5%", "35 %", "35", 0.35, None, True, "%"]
)
def test_anything_else_is_no_finish(wrong):
    rule = (
        r'^must be a share of the run such as "35%", above "0%" and at most "100%", or a duration of at least one step '
        r'such as "7ep", "800it" or 800; received '
    )
    with pytest.raises(ValueError, match=rule) as error:
        check_finish(wrong)
    assert str(error.value).endswith(repr(wrong))


@pytest.mark.parametrize("finish", ["35%", "12.5%", "100%", "7ep", "800it", 800])
def test_a_finish_is_a_share_or_a_duration(finish):
    assert check_finish(finish) == finish
